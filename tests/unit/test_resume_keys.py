"""What makes two submissions the same: a documented form, which new options do not change."""

import hashlib
import pathlib
from dataclasses import asdict

import pytest

from guardfleet.cli.fingerprint import UNASKED, canonical, fingerprint
from guardfleet.domain.plan import DEFAULT_PLAN
from guardfleet.errors import RejectedError

ROOT = pathlib.Path(__file__).parents[2]


def test_the_form_is_the_one_that_is_documented() -> None:
    late = {"detectors": None, "detector_cascades": None}
    form = canonical("submit", {"strict": True, "priority": 5, **asdict(DEFAULT_PLAN), **late})
    assert form.decode() in (ROOT / "docs" / "resume.md").read_text()


def test_what_was_not_asked_changes_nothing() -> None:
    asked = {"model": "a", **UNASKED}
    assert canonical("submit", asked | {"option_of_a_later_release": None}) == canonical("submit", {"model": "a"})


@pytest.mark.parametrize("name", [*UNASKED, "model", "second_model", "long_texts", "callback_url", "encoding"])
def test_each_thing_asked_changes_the_key(name: str) -> None:
    other = not UNASKED[name] if isinstance(UNASKED.get(name), bool) else 7
    assert canonical("submit", {name: other}) != canonical("submit", {})


def test_a_key_is_of_bytes_command_and_form_alone(tmp_path: pathlib.Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    assert fingerprint([str(one)], "submit", {}) == fingerprint([str(two)], "submit", {"sure": 0.9})
    assert fingerprint([str(one)], "submit", {}) == hashlib.sha256(b'same{"asked":{},"command":"submit","form":1}').digest()
    assert fingerprint([str(one)], "submit", {}) != fingerprint([str(one)], "scan", {})
    assert fingerprint(["-"], "scan", {}) is None
    with pytest.raises(RejectedError, match="cannot be read"):
        fingerprint([str(tmp_path / "none")], "scan", {})
    with pytest.raises(TypeError):
        canonical("submit", {"plan": object()})


def test_several_files_are_named_by_all_of_them_in_their_order(tmp_path: pathlib.Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    one.write_text("1")
    two.write_text("2")
    found = {fingerprint([str(path) for path in paths], "scan", {}) for paths in ((one,), (one, two), (two, one))}
    assert len(found) == 3
