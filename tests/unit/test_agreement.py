"""What follows for a model that is being tried, from counts alone."""

import pytest

from guardfleet.sampling.agreement import Compared, Ruling, ruling
from guardfleet.sampling.estimates import share_of


@pytest.mark.parametrize(
    ("found", "wanted", "ruled"),
    [
        (Compared(), 1000, Ruling.WAIT),
        (Compared(49, 0), 1000, Ruling.WAIT),  # too few to fail
        (Compared(50, 30), 1000, Ruling.HALT),  # surely below
        (Compared(200, 195), 1000, Ruling.WAIT),  # 97.5 %, perhaps by chance
        (Compared(1000, 979), 1000, Ruling.HALT),
        (Compared(1000, 980), 1000, Ruling.ADVANCE),
        (Compared(999, 999), 1000, Ruling.WAIT),
        (Compared(1000, 1000, 0, 10), 1000, Ruling.ADVANCE),  # 1 % more errors is the bound
        (Compared(1000, 1000, 0, 11), 1000, Ruling.HALT),
        (Compared(1000, 1000, 30, 35), 1000, Ruling.ADVANCE),  # the old model fails on them too
        (Compared(100, 100, 0, 3), 1000, Ruling.HALT),
    ],
)
def test_a_canary_advances_or_halts_by_agreement_and_errors(found: Compared, wanted: int, ruled: Ruling) -> None:
    said, reason = ruling(found, wanted_texts=wanted, min_agreement=0.98)
    assert said is ruled
    assert (reason is not None) == (ruled is Ruling.HALT)


def test_a_share_has_the_interval_of_wilson() -> None:
    found = share_of(98, 100)
    assert found is not None
    assert found.as_dict() == {"value": 0.98, "low": 0.93, "high": 0.9945}
    assert share_of(0, 0) is None
