"""A policy that is written as YAML is read as the same policy."""

import pytest

from guardfleet.policy import presets
from guardfleet.policy.reading import read
from guardfleet.policy.writing import write


@pytest.mark.parametrize("text", [*presets.PRESETS.values()])
def test_a_policy_that_is_written_is_read_as_the_same(text: str) -> None:
    policy = read(text)
    assert read(write(policy)) == policy


def test_words_that_another_yaml_would_not_read_as_words_stay_words() -> None:
    words = ["1e5", "no", "1:30", "null", "true", "~", "2020-01-01", "a: b", "#x", "0x1f", "=", "<<", "1_000", ".5", "+1"]
    quoted = ", ".join(f'"{one}"' for one in words)
    policy = read(
        f"name: x\ndefault: block\nrules:\n  - {{id: a, when: {{metadata: {{k: [{quoted}, 7, 1.5e-7, true]}}}}, action: block}}"
    )
    assert read(write(policy)) == policy
    assert policy.rules[0].when.metadata["k"][: len(words)] == words
