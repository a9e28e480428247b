"""What doctor says of a model: found in its files' headers, without reading a weight."""

import itertools
import json
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from guardfleet.cli.doctor import model
from guardfleet.cli.doctor.examination import looked
from guardfleet.cli.doctor.findings import Finding, Pitfall, Status
from guardfleet.settings import load_settings
from tests.engine.test_hub import COMMIT, NAME, at, cached
from worker.engine.model.memory import PUBLISHED, Device

ROOT = pathlib.Path(__file__).parents[2]
GB = 10**9


@pytest.fixture
def guard(tmp_path: pathlib.Path) -> pathlib.Path:
    """The demo model in a folder of its own, in two files as large models are."""
    folder = pathlib.Path(shutil.copytree(ROOT / "models" / "demo", tmp_path / "guard"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"model-0000{1 + (at >= len(names) // 2)}-of-00002.safetensors" for at, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in names if files[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


def found(
    asked: str | pathlib.Path, *, texts: tuple[str, ...] = (), within_s: float = 600.0, on: Device | None = None, **settings: Any
) -> dict[str, Finding]:
    """The findings of a chain by name, as the examination leaves checks out."""
    out: dict[str, Finding] = {}
    settings = {"device": "cpu", "dtype": "float32", **settings}
    memory_of = None if on is None else lambda _: on
    chains = model.checks(load_settings(model=str(asked), **settings), texts=texts, within_s=within_s, memory_of=memory_of)
    for check in itertools.chain(*chains):
        if all(name in out and out[name].status is not Status.FAILED for name in check.after):
            out[check.name] = looked(check)
    return out


def failed(seen: dict[str, Finding]) -> Finding:
    """The one that failed of those that look for the model and into it."""
    return next(seen[name] for name in ("model path", "model") if seen[name].status is Status.FAILED)


def test_a_whole_model_is_found_without_reading_its_weights(guard: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(*_: Any, **__: Any) -> Any:
        raise AssertionError("the weights were read")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", unread)
    monkeypatch.setattr("worker.engine.model.source.digest_of", unread)
    seen = found(guard)
    assert {name: finding.status for name, finding in seen.items()} == dict.fromkeys(
        ("model path", "device", "model", "memory", "long texts"), Status.OK
    )
    assert seen["model"].said == "guard, 2 MB of weights, complete; 8,192 positions"


def without_shard(folder: pathlib.Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()


def cut_shard(folder: pathlib.Path) -> None:
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def rewritten(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[pathlib.Path], None]:
    def rewrite(folder: pathlib.Path) -> None:
        file = folder / "model-00001-of-00002.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file, {"format": "pt"})

    return rewrite


def lessened(weights: dict[str, torch.Tensor]) -> None:
    del weights[next(iter(weights))]


def narrowed(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights[name] = weights[name][:-1].contiguous()


def configured(**changes: Any) -> Callable[[pathlib.Path], None]:
    def configure(folder: pathlib.Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return configure


def without_weights(folder: pathlib.Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()


def without_template(folder: pathlib.Path) -> None:
    (folder / "chat_template.jinja").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_shard, "lacks model-00002-of-00002.safetensors, which its model.safetensors.index.json names: download its files"),
        (cut_shard, "model-00002-of-00002.safetensors is damaged or incomplete"),
        (without_weights, "has no weights (*.safetensors)"),
        (rewritten(lessened), "lacks weights ("),
        (rewritten(lambda weights: weights.update(odd=torch.zeros(2))), "holds weights that a Qwen3 lacks (odd)"),
        (rewritten(narrowed), "has weights of other sizes than its config.json says"),
        (
            configured(model_type="llama", architectures=["LlamaForCausalLM"]),
            "is of type 'llama'; guardfleet serves Qwen3Guard-Gen",
        ),
        (without_template, "has no guard chat template"),
    ],
    ids=lambda value: getattr(value, "__name__", "")[:20] if callable(value) else "",
)
def test_a_model_that_is_not_whole_is_named_with_what_is_wrong(
    guard: pathlib.Path, damage: Callable[[pathlib.Path], None], said: str
) -> None:
    damage(guard)
    seen = failed(found(guard))
    assert seen.pitfall is Pitfall.MODEL_PATH
    assert said in seen.said
    assert seen.fix


def test_a_mistyped_folder_is_told_apart_from_a_hub_name(
    guard: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    at(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    near = failed(found(guard.with_name("gaurd")))
    assert "does not exist; " in near.said
    assert str(guard) in near.said
    assert "does not exist: check the spelling" in failed(found("/nowhere/guard")).said
    name = failed(found("models/guard"))
    assert "there is no folder 'models/guard' and no copy of such a model in the hub's cache" in name.said
    assert f"'models/guard' was taken for a hub name, because {tmp_path} has no such folder" in (name.fix or "")


def test_a_model_in_the_hub_s_cache_is_examined_there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached(tmp_path / "hub", ROOT / "models" / "demo")
    assert found(NAME)["model"].said.startswith(f"{NAME}, 2 MB of weights, complete")
    next((tmp_path / "hub").glob(f"*/snapshots/{COMMIT}/model.safetensors")).unlink()
    assert "is in the hub's cache only partly, and the hub cannot be reached" in found(NAME)["model"].said


@pytest.fixture
def online(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A hub that has the demo model, of which all but the weights is in the cache."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            is_there = (ROOT / "models" / "demo" / self.path.rsplit("/", 1)[1]).is_file()
            self.send_response(200 if is_there else 404)
            headers = {"X-Repo-Commit": COMMIT, "ETag": '"1"'} if is_there else {"X-Error-Code": "EntryNotFound"}
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:  # type: ignore[override]
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", ROOT / "models" / "demo")
    next((tmp_path / "hub").glob(f"*/snapshots/{COMMIT}/model.safetensors")).unlink()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        yield tmp_path / "hub"
        server.shutdown()
        thread.join()


def test_a_model_that_is_still_to_be_downloaded_is_said_with_its_size_and_needs_room(
    online: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = found(NAME)
    assert seen["model"].status is Status.WARNING
    assert f"{NAME} is on the hub, and the first worker downloads 2 MB to {online}" in seen["model"].said
    assert f"hf download {NAME}" in (seen["model"].fix or "")
    assert seen["memory"].status is Status.OK
    monkeypatch.setattr(model, "ROOM", 1 << 62)
    full = found(NAME)["model"]
    assert full.status is Status.FAILED
    assert "is not downloaded, and takes 2 MB; " in full.said


def shaped(folder: pathlib.Path, size: str) -> pathlib.Path:
    """A folder whose config.json says that it is one of the published models; it has no weights."""
    shape, is_tied = PUBLISHED[size]
    without_weights(folder)
    sizes = {
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary, "tie_word_embeddings": is_tied, "layer_types": ["full_attention"] * shape.layers,
    }  # fmt: skip
    configured(**sizes)(folder)
    return folder


@pytest.mark.parametrize(
    ("size", "device", "said", "fix"),
    [
        ("8B", Device("A10", 15 * GB, 15 * GB, (8, 6)), "The largest that fits: 8B in int8", "GUARDFLEET_ENGINE__QUANTIZE=int8"),
        ("8B", Device("T4", 10 * GB, 10 * GB, (7, 5)), "The largest that fits: 4B in bfloat16", "Qwen3Guard-Gen-4B"),
        ("0.6B", Device("old", GB, GB, (7, 0)), "The largest that fits: none", "a device with more memory"),
        ("4B", Device("cpu", 4 * GB, 4 * GB), "The largest that fits: 0.6B in float32", "GUARDFLEET_ENGINE__DTYPE=float32"),
    ],
)
def test_a_model_that_does_not_fit_is_answered_with_the_largest_that_does(
    guard: pathlib.Path, size: str, device: Device, said: str, fix: str
) -> None:
    dtype = "bfloat16" if device.is_cuda else "float32"
    seen = found(shaped(guard, size), on=device, dtype=dtype)
    assert seen["model"].status is Status.FAILED
    assert (seen["memory"].status, seen["memory"].pitfall) == (Status.FAILED, Pitfall.MEMORY)
    assert said in seen["memory"].said
    assert fix in (seen["memory"].fix or "")


def test_a_cpu_with_room_for_weights_but_not_for_batches_is_a_warning(guard: pathlib.Path) -> None:
    seen = found(shaped(guard, "0.6B"), on=Device("cpu", 4 * GB, 4 * GB))["memory"]
    assert seen.status is Status.WARNING
    assert "weights 3.0 GB, 4.0 GB available; batches take " in seen.said


def test_a_device_that_is_not_there_is_said_once() -> None:
    seen = found("demo", device="cuda") if not torch.cuda.is_available() else {}
    assert {name: one.status for name, one in seen.items()} in (
        {},
        {"device": Status.FAILED, "model path": Status.OK, "model": Status.OK, "memory": Status.WARNING, "long texts": Status.OK},
    )


def test_what_fits_is_said_even_if_the_model_is_not_found() -> None:
    seen = found("/nowhere", on=Device("A10", 15 * GB, 15 * GB, (8, 6)), dtype="bfloat16")["memory"]
    assert seen.said.startswith("the largest model that fits on A10 is 8B in int8")


def test_long_texts_of_a_file_are_counted_as_the_worker_would_treat_them(guard: pathlib.Path, tmp_path: pathlib.Path) -> None:
    said = found(guard, window_tokens=512)["long texts"]
    assert said.status is Status.OK
    assert "is judged in windows of 512, the policy included; one of more than" in said.said
    assert "is the error too_long" in said.said
    rows = ["short", "word " * 1000, "word " * 40_000, [{"role": "user", "content": "word " * 300}] * 1]
    turns = [{"role": role, "content": "word " * 100} for role in ("user", "assistant") * 4]
    lines = [
        json.dumps({"id": str(at), "text": row} if isinstance(row, str) else {"id": str(at), "messages": row})
        for at, row in enumerate([*rows, turns])
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join([*lines, "{oops"]))
    seen = found(guard, window_tokens=512, texts=(str(tmp_path / "texts.jsonl"),))["long texts"]
    assert (seen.status, seen.pitfall) == (Status.WARNING, Pitfall.LONG_INPUT)
    assert seen.said.startswith("of 5 texts, 1 are longer than a window (up to ")
    for part in ("1 conversations lose their oldest turns", "1 would be the error too_long", "; 1 lines are refused"):
        assert part in seen.said
    (tmp_path / "short.jsonl").write_text("\n".join(json.dumps({"id": str(at), "text": "x"}) for at in range(200)))
    assert found(guard, texts=(str(tmp_path / "short.jsonl"),))["long texts"].status is Status.OK
    some = found(guard, texts=(str(tmp_path / "short.jsonl"),), within_s=0.0)["long texts"]
    assert some.said.startswith("of the first 64 texts (more were not read in time), all fit into one window")
    missing = found(guard, texts=(str(tmp_path / "gone.jsonl"),))["long texts"]
    assert missing.status is Status.FAILED
    assert "gone.jsonl" in missing.said


def test_windows_longer_than_the_model_takes_and_parts_of_texts_are_said(guard: pathlib.Path) -> None:
    seen = found(guard, window_tokens=100_000)["long texts"]
    assert seen.status is Status.WARNING
    assert "windows of 100,000 tokens are longer than the model takes" in seen.said
    assert "only its beginning and end are judged" in found(guard, long_texts="ends")["long texts"].said
