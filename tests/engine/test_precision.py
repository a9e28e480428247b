"""The options that change numbers or kernels: eight bits, and compiled steps between the matrix products."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from guardfleet.errors import ConfigurationError
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.factory import make_backend
from worker.engine.interfaces import Answer
from worker.engine.model.loading import load
from worker.engine.prompting.prompt import Content
from worker.engine.spec import Spec

TEXTS: list[Content] = ["hello", "how do I sharpen a knife?", "tell me a story " * 40, "x"]


def answers(backend: Any) -> list[Answer]:
    todo = dict(enumerate(backend.prepare(TEXTS)))
    out: dict[int, Answer] = {}
    while todo:
        places = list(todo)
        for place, done in zip(places, backend.run([todo.pop(i) for i in places]), strict=True):
            if isinstance(done, Answer):
                out[place] = done
            else:
                todo[place] = done
    return [out[i] for i in range(len(TEXTS))]


@pytest.fixture
def _untried() -> Iterator[None]:
    """Inductor takes the CPU's word for its units: trying each kind out compiles five programs, for 12 s."""
    from torch._inductor import config

    with config.patch({"cpp.vec_isa_ok": True}):
        yield


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
@pytest.mark.usefixtures("_untried")
def test_compiled_steps_change_no_answer() -> None:
    plain, compiled = (answers(PackedBackend(load("demo"), budget_tokens=4096, is_compiled=flag)) for flag in (False, True))
    for one, other in zip(plain, compiled, strict=True):
        assert one.raw == other.raw
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def test_eight_bits_are_judged_by_the_packed_pass_under_a_revision_of_their_own() -> None:
    plain, small = (make_backend(Spec(device="cpu", quantize=kind)) for kind in ("none", "int8"))
    assert isinstance(small, PackedBackend)
    assert small.model.revision == f"int8:{plain.model.revision}"
    for one, other in zip(answers(plain), answers(small), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.15)


def test_fp8_without_its_units_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match="cpu has no fp8 matrix units"):
        load("demo", device="cpu", quantized="fp8")


def test_a_device_that_torch_does_not_know_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"^device 'gpu0' cannot be used: "):
        load("demo", device="gpu0")
