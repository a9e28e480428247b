"""Laws: decoding undoes encoding, and nothing is lost or doubled."""

import json
import types

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guardfleet.domain.retry import WEBHOOK_SCHEDULE_S, backoff_s, webhook_delay_s
from guardfleet.errors import LineError
from guardfleet.rows.lines import LineCutter
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import SeenIds
from guardfleet.security import encryption
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.security.signing import new_secret, sign
from worker.engine.packing import halve, pack

KEYRING = Keyring(new_secret_key())
DATA_KEY = KEYRING.new_data_key()
ANY_TEXT = st.text(st.characters(), max_size=60)  # lone surrogates included
UNIT = st.floats(0, 1, exclude_max=True)


@given(st.lists(st.integers(1, 3000), max_size=200), st.integers(1, 4000), st.integers(1, 64), st.booleans(), st.integers(1, 4))
def test_packing_loses_and_doubles_no_row_and_keeps_its_limits(
    lengths: list[int], budget: int, rows: int, padded: bool, streams: int
) -> None:
    batches = pack(lengths, budget_tokens=budget, max_rows=rows, padded=padded, streams=streams)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= rows
        cost = max(lengths[i] for i in batch) * len(batch) if padded else sum(lengths[i] for i in batch)
        assert len(batch) == 1 or cost <= budget


@given(st.lists(st.integers(1, 3000), min_size=2, max_size=100))
def test_halving_keeps_every_row_and_makes_two_parts(lengths: list[int]) -> None:
    first, second = halve(range(len(lengths)), lengths)
    assert first
    assert second
    assert first + second == list(range(len(lengths)))


@given(st.integers(1, 200), st.floats(0.001, 10), st.floats(0.001, 1000), UNIT)
def test_backoff_stays_between_half_its_step_and_its_cap(failures: int, base: float, cap: float, chance: float) -> None:
    delay = backoff_s(failures, base_s=base, cap_s=cap, random=lambda: chance)
    step = min(cap, base * 2.0 ** min(failures - 1, 62))
    assert step / 2 <= delay <= step


@given(st.integers(0, 20), UNIT)
def test_webhook_delays_follow_the_schedule_within_its_jitter(attempts: int, chance: float) -> None:
    delay = webhook_delay_s(attempts, schedule=WEBHOOK_SCHEDULE_S, random=lambda: chance)
    if attempts >= len(WEBHOOK_SCHEDULE_S):
        assert delay is None
    else:
        assert delay is not None
        assert abs(delay - WEBHOOK_SCHEDULE_S[attempts]) <= 0.2 * WEBHOOK_SCHEDULE_S[attempts] + 1e-9


ROWS = st.lists(
    st.builds(
        PayloadRow,
        st.text(min_size=1, max_size=9),
        ANY_TEXT
        | st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": ANY_TEXT}), min_size=1, max_size=3
        ),
    ),
    max_size=8,
)


@given(ROWS)
def test_sealed_rows_open_to_what_was_sealed_byte_for_byte(rows: list[PayloadRow]) -> None:
    blob = KEYRING.encrypt_rows(DATA_KEY, rows, job_id=5, shard_no=2)
    assert KEYRING.decrypt_rows(DATA_KEY, blob, job_id=5, shard_no=2) == rows


@given(st.none() | st.dictionaries(st.text(max_size=5), st.integers(), min_size=1), st.lists(st.text(), min_size=1).map(tuple))
def test_notes_travel_so_that_the_version_before_can_open_the_row(metadata: dict[str, int] | None, notes: tuple[str, ...]) -> None:
    row = PayloadRow("1", "x", metadata, notes)
    blob = KEYRING.encrypt_rows(DATA_KEY, [row], job_id=1, shard_no=0)
    assert KEYRING.decrypt_rows(DATA_KEY, blob, job_id=1, shard_no=0) == [row]
    ((row_id, content, kept),) = KEYRING.open(
        DATA_KEY, blob, kind=encryption.ROWS, job_id=1, shard_no=0
    )  # it knows three values a row
    assert (row_id, content) == ("1", "x")
    assert {**(metadata or {}), **kept} == kept


@given(ANY_TEXT, ANY_TEXT, st.integers(1, 9), st.integers(1, 9))
def test_digests_are_equal_exactly_for_equal_texts_of_one_tenant(one: str, other: str, mine: int, yours: int) -> None:
    assert (KEYRING.digest(mine, one) == KEYRING.digest(yours, other)) is (one == other and mine == yours)


@given(st.binary(max_size=200), st.integers(0, 2**40))
def test_every_active_secret_signs(body: bytes, moment: int) -> None:
    secrets_ = [new_secret(), new_secret()]
    both = sign(secrets_, event_id="evt_1", timestamp_s=moment, body=body)["webhook-signature"].split()
    assert both == [sign([s], event_id="evt_1", timestamp_s=moment, body=body)["webhook-signature"] for s in secrets_]


@given(st.dictionaries(st.text(max_size=5), st.integers()))
def test_json_values_survive_a_sealed_metadata(metadata: dict[str, int]) -> None:
    row = PayloadRow("1", "x", json.loads(json.dumps(metadata)))
    blob = KEYRING.encrypt_rows(DATA_KEY, [row], job_id=1, shard_no=0)
    assert KEYRING.decrypt_rows(DATA_KEY, blob, job_id=1, shard_no=0) == [row]


@given(st.lists(st.text("ab", min_size=6, max_size=6), max_size=60), st.booleans())
def test_an_id_is_a_duplicate_just_when_it_came_before(ids: list[str], all_in_one_bucket: bool) -> None:
    seen, before = SeenIds(), dict[str, int]()
    with pytest.MonkeyPatch.context() as patch:
        if all_in_one_bucket:  # ids as their own hashes, so that the end of one and the beginning of the next often make a third
            patch.setattr(
                "guardfleet.rows.row_ids.hashlib.blake2b", lambda data, **_: types.SimpleNamespace(digest=lambda: b"xx" + data)
            )
        for line, value in enumerate(ids):
            if value in before:
                with pytest.raises(LineError, match=f"in line {before[value]} "):
                    seen.check(line, value)
            else:
                seen.check(line, value)
                before[value] = line


@given(st.lists(st.binary(max_size=30).map(lambda piece: piece.replace(b"x", b"\n")), max_size=12), st.integers(0, 20))
@example([b"\n \n" * 20, b"a\n\n\n\tb  ", b"\n" * 40, b"c" * 50], 20)
def test_lines_are_the_same_however_they_are_cut(pieces: list[bytes], longest: int) -> None:
    cutter = LineCutter(longest)
    found = [line for piece in pieces for line in cutter.cut(piece)] + cutter.end()
    whole = [line.lstrip() for line in b"".join(pieces).split(b"\n")]
    assert found == [(number, line if len(line) <= longest else None) for number, line in enumerate(whole, 1) if line]
