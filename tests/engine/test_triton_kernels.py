"""The fused steps equal the plain ones where Triton interprets its kernels, and compile for GPUs that are not here."""

import importlib.util
import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import missing

torch = pytest.importorskip("torch")

from tests.services.interpreted import Outcome, interpreter, outcome  # noqa: E402
from worker.engine.forward import elementwise, steps  # noqa: E402

EPS = 1e-6
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HEADS = [(4, 2, 32), (16, 8, 128), (32, 8, 64)]
ROUNDINGS = 16  # of fp32: a sum of 4,096 in a tree, a root, some products; exp and log have one or two more than they need
Call = Callable[[str, tuple[Any, ...]], Outcome]


def _each(*cases: tuple[int, ...]) -> list[tuple[Any, ...]]:
    """The cases in every dtype; those of many rows, which take the interpreter a second, in one."""
    return [(dtype, *case) for case in cases for dtype in (DTYPES if case[0] < 100 else [torch.bfloat16])]


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Call]:
    _needs_triton()
    with interpreter() as call:
        yield call


@pytest.fixture(scope="module", params=["fused", "plain"])
def run(request: pytest.FixtureRequest) -> Call:
    """Either set of steps: what is held against arithmetic below holds for both."""
    if request.param == "fused":
        return request.getfixturevalue("interpreted")
    return lambda name, args: outcome(getattr(steps, name), args)


def _needs_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        missing("Triton, which is there for Linux on x86-64")


def _random(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def _whole(tensor: Any) -> Any:
    """All memory that a view is of."""
    return torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())


def _rounds_to(found: Any, exact: Any, terms: Any, lost: Any = 1.0) -> None:
    """Each value is one that its exact value, within the error of fp32 for terms of this size, is rounded to.

    `lost` is what the least normal number is multiplied with: below it fp32 may give 0.
    """
    fp32 = torch.finfo(torch.float32)
    slack = ROUNDINGS * fp32.eps * terms.abs() + fp32.tiny * lost
    low, high = (exact - slack).to(found.dtype), (exact + slack).to(found.dtype)
    assert found.shape == exact.shape
    assert ((low <= found) & (found <= high)).all(), (found.float() - exact).abs().max()


def _normed(x: Any, weight: Any, eps: float = EPS) -> Any:
    x = x.double()
    return (x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()).float()


@pytest.mark.parametrize(("dtype", "n", "hidden"), _each((0, 1024), (1, 40), (3, 4096), (130, 1024), (3, 2560)))
def test_a_norm_is_rounded_once(run: Call, dtype: Any, n: int, hidden: int) -> None:
    x, weight = _random(n, hidden, dtype=dtype), _random(hidden, dtype=dtype)
    exact = _normed(x, weight)
    _rounds_to(run("norm", (x, weight, EPS)).result, exact, exact)


@pytest.mark.parametrize(("scale", "eps"), [(1e-4, 1e-6), (1e-4, 1e-2), (3e4, 1e-6), (0.0, 1e-6)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_norm_of_very_small_or_large_values_is_as_exact(run: Call, dtype: Any, scale: float, eps: float) -> None:
    x, weight = (_random(3, 256).clamp(-2, 2) * scale).to(dtype), _random(256, dtype=dtype)
    exact = _normed(x, weight, eps)
    _rounds_to(run("norm", (x, weight, eps)).result, exact, exact)


@pytest.mark.parametrize(("dtype", "n", "hidden"), _each((0, 1024), (1, 1024), (3, 2560), (130, 40)))
def test_an_addition_is_rounded_in_place_before_its_norm(run: Call, dtype: Any, n: int, hidden: int) -> None:
    x, delta, weight = _random(n + 2, hidden, dtype=dtype)[1:-1], _random(n, hidden + 1, dtype=dtype)[:, 1:], _random(hidden)
    weight = weight.to(dtype)
    found = run("add_norm", (x, delta, weight, EPS))
    added = _whole(x).clone()
    added[hidden : (n + 1) * hidden] += delta.flatten()
    assert torch.equal(_whole(found.args[0]), added), "the sum alone is written, and rounded as torch's"
    assert torch.equal(found.args[1], delta)
    exact = _normed(x + delta, weight)
    _rounds_to(found.result, exact, exact)


def _turn(dtype: Any, n: int, heads: int, kv_heads: int, dim: int, eps: float = EPS) -> tuple[Any, ...]:
    """Arguments of a rotation that writes into slices of a workspace."""
    tables = _random(2, 50, dim, dtype=dtype)
    room = _random(2, 2, n + 5, max(kv_heads, 1), dim, dtype=dtype)[1, :, 3 : 3 + n]
    keys, values = room if kv_heads else (None, None)
    positions = torch.randint(0, 50, (n,), generator=torch.Generator().manual_seed(n))
    projected = _random(n, (heads + 2 * kv_heads) * dim, dtype=dtype)
    return (projected, *_random(2, dim, dtype=dtype), *tables, positions, eps, keys, values)


def _turned(x: Any, weight: Any, cos: Any, sin: Any, eps: float) -> tuple[Any, Any]:
    """What a rotation is, and the sum of the sizes of its terms."""
    normed, half = _normed(x, weight, eps), x.shape[-1] // 2
    a, b = normed * cos[:, None].float(), normed.roll(half, -1) * sin[:, None].float()
    return a + b, a.abs() + b.abs()


@pytest.mark.parametrize(
    ("dtype", "n", "heads", "kv_heads", "dim"),
    _each(
        *((3, *heads) for heads in HEADS),
        (0, 16, 8, 128),
        (1, 32, 8, 128),
        (130, 4, 2, 32),
        (5, 16, 0, 128),
        (5, 0, 8, 128),
        (2, 3, 1, 48),
    ),
)
def test_heads_are_turned_and_keys_and_values_put_in_their_places(
    run: Call, dtype: Any, n: int, heads: int, kv_heads: int, dim: int
) -> None:
    args = _turn(dtype, n, heads, kv_heads, dim, 0.01)
    projected, q_norm, k_norm, cos, sin, positions, eps, keys, values = args
    found = run("rotate", args)
    assert found.result.shape == (n, heads, dim)
    assert found.result.is_contiguous()
    q, k, v = projected.view(n, heads + 2 * kv_heads, dim).split([heads, kv_heads, kv_heads], 1)
    cos, sin = cos[positions], sin[positions]
    _rounds_to(found.result, *_turned(q, q_norm, cos, sin, eps))
    if keys is not None:
        _rounds_to(found.args[-2], *_turned(k, k_norm, cos, sin, eps))
        assert torch.equal(found.args[-1], v)
        for view, before in zip(found.args[-2:], (keys, values), strict=True):
            after = _whole(view).clone()
            after.as_strided(before.shape, before.stride(), before.storage_offset()).copy_(before)
            assert torch.equal(after, _whole(before)), "no other place is written"


def test_keys_may_lie_head_by_head(run: Call) -> None:
    args = _turn(torch.bfloat16, 3, 4, 2, 32)
    by_head = torch.zeros(2, 2, 9, 32, dtype=torch.bfloat16)
    keys, values = by_head[:, :, 2:5].transpose(1, 2)
    found, expected = run("rotate", (*args[:-2], keys, values)), run("rotate", args)
    assert torch.equal(found.result, expected.result)
    assert torch.equal(found.args[-2], expected.args[-2])
    assert torch.equal(found.args[-1], expected.args[-1])
    assert _whole(found.args[-2])[: 2 * 32].count_nonzero() == 0


@pytest.mark.parametrize(("dtype", "n", "size"), _each((0, 3072), (1, 40), (3, 9728), (130, 1025)))
def test_a_gate_is_rounded_once(run: Call, dtype: Any, n: int, size: int) -> None:
    gate_up = _random(n, 2 * size, dtype=dtype)
    gate_up[:, :size:7] *= 60  # far below and far above zero: SiLU is about 0, and about what it is given
    gate, up = gate_up.double().chunk(2, -1)
    exact = (gate * torch.sigmoid(gate) * up).float()
    _rounds_to(run("gate", (gate_up,)).result, exact, exact, (gate * up).abs().float())


def _attended(scores: Any, values: Any) -> tuple[Any, Any]:
    """Attention of (heads, n, keys) over (keys, heads, dim), as torch's flash attention gives it: (n, heads, dim), (heads, n)."""
    lse = scores.double().logsumexp(-1)
    weights = (scores - lse[..., None]).exp().nan_to_num()
    return torch.einsum("hnk,khd->nhd", weights, values.double()).float().contiguous(), lse.float()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "dim", "scale"), [(4, 32, 1.0), (16, 128, 1.0), (5, 48, 300.0)])
def test_merged_attentions_are_one_over_all_keys(run: Call, dtype: Any, heads: int, dim: int, scale: float) -> None:
    n, split = 19, 7
    scores, values = _random(heads, n, 30) * scale, _random(30, heads, dim)
    scores[:, 3, :split] = scores[:, 4, split:] = scores[1, 5] = -torch.inf
    (out, lse), (other, other_lse) = (_attended(scores[..., at], values[at]) for at in (slice(split), slice(split, None)))
    found = run("merge", (out.to(dtype), lse, other.to(dtype), other_lse, None))
    merged, merged_lse = _attended(scores, values)
    eps, weight_error = torch.finfo(torch.float32).eps, 1 + lse.masked_fill(lse.isinf(), 0).abs().max()  # an exponent's is absolute
    # The parts are rounded and then their mean is, by half a unit each.
    slack = (torch.finfo(dtype).eps + ROUNDINGS * eps * weight_error) * torch.maximum(out.abs(), other.abs())
    assert ((found.args[0].float() - merged).abs() <= slack).all()
    torch.testing.assert_close(found.args[1], merged_lse, rtol=4 * eps, atol=4 * eps)
    assert torch.equal(found.args[0][3], other.to(dtype)[3])
    assert torch.equal(found.args[0][4], out.to(dtype)[4])
    assert not found.args[0][5, 1].any()


@pytest.mark.parametrize("empty", [torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_has_no_keys_weighs_nothing_whatever_it_holds(run: Call, dtype: Any, empty: float) -> None:
    out, other = _random(2, 3, 2, 32, dtype=dtype)
    lse, other_lse = torch.tensor([[[empty, 0.5, empty]] * 2, [[1.5, empty, empty]] * 2])
    out[0], other[1], out[2] = torch.nan, torch.nan, torch.inf
    found = run("merge", (out, lse, other, other_lse, None))
    assert torch.equal(found.args[0], torch.stack([other[0], out[1], torch.zeros_like(out[2])]))
    assert torch.equal(found.args[1], torch.tensor([[1.5, 0.5, -torch.inf]] * 2))


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("m", [0, 1, 3, 40])
def test_a_merge_of_some_leaves_the_others_alone(run: Call, m: int, kind: Any) -> None:
    n, heads, dim = 50, 4, 64
    out, lse = _random(n, heads, dim, dtype=torch.bfloat16), _random(heads, n)
    other, other_lse = _random(m, heads, dim, dtype=torch.bfloat16), _random(heads, m + 1)[:, 1:]
    index = torch.randperm(n, generator=torch.Generator().manual_seed(m))[:m].to(kind)
    found = run("merge", (out, lse, other, other_lse, index))
    merged = run("merge", (out[index].clone(), lse[:, index].clone(), other, other_lse.contiguous(), None))
    out[index], lse[:, index] = merged.args[:2]
    assert torch.equal(found.args[0], out)
    assert torch.equal(found.args[1], lse)


def test_a_third_attention_is_merged_by_what_the_first_merge_says(run: Call) -> None:
    scores, values = _random(4, 6, 30) * 3, _random(30, 4, 32)
    (out, lse), *others = (_attended(scores[..., at : at + 10], values[at : at + 10]) for at in (0, 10, 20))
    for other, other_lse in others:
        out, lse, *_ = run("merge", (out, lse, other, other_lse, None)).args
    torch.testing.assert_close(out, _attended(scores, values)[0])


def test_the_plain_steps_are_those_of_the_pass_but_for_roundings() -> None:
    x, weight = _random(5, 64), _random(64)
    assert torch.equal(steps.norm(x, weight, EPS), elementwise.norm(x, weight, EPS))
    torch.testing.assert_close(steps.gate(x), elementwise.gate(*x.chunk(2, -1)))
    projected, q_norm, k_norm, cos, sin, positions, _, keys, values = _turn(torch.float32, 5, 4, 2, 32)
    q = steps.rotate(projected, q_norm, k_norm, cos, sin, positions, EPS, keys, values)
    turned = [projected.view(5, 8, 32), elementwise.HeadNorm.of(q_norm), cos[positions], sin[positions]]
    torch.testing.assert_close(q, elementwise.rotate(*turned, EPS)[:, :4])
    torch.testing.assert_close(keys, elementwise.rotate(turned[0], elementwise.HeadNorm.of(k_norm), *turned[2:], EPS)[:, 4:6])


def test_a_cpu_takes_the_plain_steps_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert steps.steps_for(torch.device("cpu")).gate is steps.gate
    assert not caplog.records


def test_a_gpu_without_triton_takes_the_plain_steps_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "worker.engine.forward.triton_kernels", raising=False)
    monkeypatch.delattr("worker.engine.forward.triton_kernels", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with caplog.at_level(logging.WARNING):
        assert steps.steps_for(torch.device("cuda")).merge is steps.merge
    (record,) = caplog.records
    assert record.getMessage().startswith("engine_unfused: ")
    assert "triton" in record.getMessage()


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, tuple[Any, ...], dict[str, int]]]:
    """What would have been launched, on a GPU."""
    _needs_triton()
    from worker.engine.forward import triton_kernels

    made: list[tuple[Any, tuple[Any, ...], dict[str, int]]] = []
    monkeypatch.setattr(triton_kernels, "_launch", lambda kernel, grid, *args, **meta: made.append((kernel, args, meta)))
    return made


def _launch_all(heads: int, kv_heads: int, dim: int, dtype: Any) -> None:
    from worker.engine.forward import triton_kernels

    x, weight = _random(32, 1024, dtype=dtype), _random(1024, dtype=dtype)
    triton_kernels.norm(x, weight, EPS)
    triton_kernels.add_norm(x, x, weight, EPS)
    triton_kernels.gate(x)
    for counts in ((heads, kv_heads), (heads, 0), (0, kv_heads)):
        triton_kernels.rotate(*_turn(dtype, 32, *counts, dim))
    out, lse = _random(32, heads, dim, dtype=dtype), _random(heads, 32)
    triton_kernels.merge(out, lse, out, lse, None)
    triton_kernels.merge(out, lse, out, lse, torch.arange(32))


def _compile(kernel: Any, args: tuple[Any, ...], meta: dict[str, int], capability: int) -> Any:
    """As a launch with these arguments does where there is a GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    meta = dict(meta)
    options = {"num_warps": meta.pop("num_warps"), "enable_fp_fusion": True}
    pointers = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64", torch.int32: "*i32"}
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    aligned: dict[tuple[int, ...], Any] = {}
    for i, (param, value) in enumerate(zip(kernel.params, [*args, *meta.values()], strict=True)):
        if param.is_constexpr or value is None:
            kind, constants[param.name] = "constexpr", value
        else:
            kind = pointers[value.dtype] if torch.is_tensor(value) else {int: "i32", float: "fp32"}[type(value)]
        signature[param.name] = kind
        multiple = kind[0] == "*" or (kind == "i32" and value % 16 == 0)
        if multiple and not (param.do_not_specialize or param.do_not_specialize_on_alignment):
            aligned[i,] = [["tt.divisibility", 16]]
    return triton.compile(ASTSource(kernel, signature, constants, aligned), GPUTarget("cuda", capability, 32), options)


@pytest.fixture
def compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of the session's own: what depends on no heads is compiled once for each GPU."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), HEADS[1:])
@pytest.mark.usefixtures("compiled_once")
def test_every_kernel_compiles_for_gpus(launches: Any, capability: int, heads: int, kv_heads: int, dim: int) -> None:
    _launch_all(heads, kv_heads, dim, torch.bfloat16)
    assert len(launches) == 8
    for launch in launches:
        compiled = _compile(*launch, capability)
        assert compiled.asm["cubin"]
        assert "global.v4.b32" in compiled.asm["ptx"], "16 bytes at a time"


def test_a_pass_of_another_size_compiles_nothing_anew(launches: Any) -> None:
    """What a kernel is compiled for: constants, and whether other integers are 1 or multiples of 16."""

    def kind(param: Any, value: Any) -> Any:
        if isinstance(value, int) and not param.is_constexpr:
            return param.do_not_specialize or (value == 1, value % 16 == 0)
        return value if param.is_constexpr or value is None else ""

    from worker.engine.forward import triton_kernels

    seen = set()
    for n in (1, 3, 16, 35):
        x, weight, out, lse = _random(n, 64), _random(64), _random(n, 4, 32), _random(4, n)
        triton_kernels.norm(x, weight, EPS)
        triton_kernels.add_norm(x, x, weight, EPS)
        triton_kernels.gate(x)
        triton_kernels.rotate(*_turn(torch.bfloat16, n, 4, 2, 32))
        triton_kernels.merge(out, lse, out, lse, None)
        seen |= {
            (kernel.__name__, tuple(kind(*pair) for pair in zip(kernel.params, [*args, *meta.values()], strict=False)))
            for kernel, args, meta in launches
        }
    assert len(seen) == 5


def _refused() -> Iterator[tuple[str, tuple[Any, ...]]]:
    x, weight = _random(3, 64), _random(64)
    yield "norm", (x.T, _random(3), EPS)
    yield "norm", (x, _random(63), EPS)
    yield "add_norm", (x, x[:2], weight, EPS)
    turn = _turn(torch.float32, 3, 4, 2, 32)
    yield "rotate", (*turn[:5], turn[5][:2], *turn[6:])
    yield "rotate", (*turn[:7], turn[7][:2], turn[8])
    yield "rotate", (turn[0][:, 1:], *turn[1:])
    yield "rotate", (*turn[:3], turn[3][:, ::2].contiguous(), *turn[4:])
    yield "gate", (x[:, :63],)
    out, lse = _random(3, 4, 32), _random(4, 3)
    yield "merge", (out, lse[:, :2], out, lse, None)
    yield "merge", (out, lse, out[:2], lse[:, :2], None)
    yield "merge", (out, lse, out, lse, torch.arange(2))
    yield "merge", (out.transpose(0, 1).contiguous().transpose(0, 1), lse, out, lse, None)


@pytest.mark.parametrize("at", range(12))
def test_tensors_that_a_kernel_would_leave_are_refused(launches: Any, at: int) -> None:
    from worker.engine.forward import triton_kernels

    name, args = next(itertools.islice(_refused(), at, None))
    with pytest.raises(ValueError, match=r"expected|must be contiguous"):
        getattr(triton_kernels, name)(*args)
    assert not launches
