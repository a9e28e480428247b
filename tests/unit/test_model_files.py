"""A model's revision: any changed byte of its folder changes it, and no cache hides a change."""

import os
import pathlib
import random
import shutil
import time

import pytest

from guardfleet.errors import ConfigurationError
from worker.engine.model import model_files
from worker.engine.model.model_files import REMEMBERED, STABLE_S, digest_of, folder_of

MIB = 1 << 20
LONG_AGO_NS = time.time_ns() - int(1e15)


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "_SEEN", {})


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder that looks like a model's, of two shards."""
    folder = tmp_path / "model"
    (folder / "templates").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "templates/other.jinja"):
        (folder / name).write_text(f"this is {name}")
    for shard in (1, 2):
        (folder / f"model-{shard}.safetensors").write_bytes(random.Random(shard).randbytes(5 * MIB))
    return folder


@pytest.mark.parametrize("at", [0, 1, MIB - 1, MIB, 2 * MIB + 12_345, 4 * MIB, 5 * MIB - 1])
def test_one_changed_byte_anywhere_is_another_revision(model: pathlib.Path, at: int) -> None:
    before = digest_of(model)
    with (model / "model-2.safetensors").open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    assert digest_of(model) != before


def test_zeros_in_the_middle_are_another_revision(model: pathlib.Path) -> None:
    before = digest_of(model)
    with (model / "model-1.safetensors").open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(3 * MIB))
    assert digest_of(model) != before


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "templates/other.jinja"]
)
def test_every_file_that_says_how_to_judge_counts(model: pathlib.Path, name: str) -> None:
    before = digest_of(model)
    (model / name).write_text("THIS IS" + (model / name).read_text()[7:])
    assert digest_of(model) != before


def test_another_file_more_or_less_or_renamed_or_exchanged_is_another_revision(model: pathlib.Path) -> None:
    found = [digest_of(model)]
    one, two = model / "model-1.safetensors", model / "model-2.safetensors"
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)
    found.append(digest_of(model))
    one.rename(model / "model-3.safetensors")
    found.append(digest_of(model))
    (model / "pytorch_model.bin").write_bytes(b"weights")
    found.append(digest_of(model))
    (model / "model-3.safetensors").unlink()
    found.append(digest_of(model))
    assert len(set(found)) == 5


def test_prose_and_what_tools_hide_in_a_folder_are_no_part_of_it(model: pathlib.Path) -> None:
    before = digest_of(model)
    (model / "README.md").write_text("how it was trained")
    (model / ".cache").mkdir()
    (model / ".cache" / "download.json").write_text("{}")
    assert digest_of(model) == before


def aged(model: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the folder had been there for a while."""
    later = time.time_ns() + int(2 * STABLE_S * 1e9)
    monkeypatch.setattr("worker.engine.model.model_files.time.time_ns", lambda: later)


def test_a_settled_file_is_hashed_once_by_all_processes_together(
    model: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(model, monkeypatch)
    memory = tmp_path / "not there yet"
    before = digest_of(model, memory)
    assert (memory / REMEMBERED).exists()
    monkeypatch.setattr(model_files, "_SEEN", {})
    monkeypatch.setattr("worker.engine.model.model_files.hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert digest_of(model, memory) == before


def test_a_file_that_was_changed_just_now_is_not_remembered(
    model: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = max(file.stat().st_ctime_ns for file in model.iterdir())  # the kernel's clock, which may be another than ours
    monkeypatch.setattr("worker.engine.model.model_files.time.time_ns", lambda: newest + int(STABLE_S * 1e9 / 2))
    digest_of(model, tmp_path)
    assert not (tmp_path / REMEMBERED).exists()
    assert not model_files._SEEN


def test_no_remembered_digest_survives_a_change_however_it_is_hidden(
    model: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size, same name, same times of modification, in place and by another file under the name."""
    weights = model / "model-1.safetensors"
    os.utime(weights, ns=(LONG_AGO_NS, LONG_AGO_NS))
    aged(model, monkeypatch)
    found = [digest_of(model, tmp_path)]
    content = bytearray(weights.read_bytes())
    content[2 * MIB] ^= 1
    with weights.open("r+b") as file:
        file.write(content)
    os.utime(weights, ns=(LONG_AGO_NS, LONG_AGO_NS))
    found.append(digest_of(model, tmp_path))
    content[2 * MIB] ^= 2
    (model / "new").write_bytes(content)
    os.utime(model / "new", ns=(LONG_AGO_NS, LONG_AGO_NS))
    (model / "new").replace(weights)
    found.append(digest_of(model, tmp_path))
    assert len(set(found)) == 3


@pytest.mark.parametrize("damaged", ["", "{}", "[[1]]", "[1]", '[["a", 1, 1, 1, 1, "x"]]'])
def test_a_damaged_memory_is_no_memory(
    model: pathlib.Path, tmp_path: pathlib.Path, damaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(model, monkeypatch)
    before = digest_of(model)
    monkeypatch.setattr(model_files, "_SEEN", {})
    (tmp_path / REMEMBERED).write_text(damaged)
    assert digest_of(model, tmp_path) == before


def test_where_nothing_can_be_written_the_digest_is_computed_all_the_same(
    model: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(model, monkeypatch)
    assert digest_of(model, pathlib.Path("/proc/nowhere")) == digest_of(model)


def test_an_adapter_beside_the_weights_is_refused_by_name(model: pathlib.Path) -> None:
    assert folder_of(str(model)) == model
    (model / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="holds an adapter"):
        folder_of(str(model))


def test_a_copy_of_a_folder_is_the_same_revision(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(model, tmp_path / "elsewhere")
    assert digest_of(tmp_path / "elsewhere") == digest_of(model)
