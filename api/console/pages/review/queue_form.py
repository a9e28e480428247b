"""The form of a queue: what is typed in it, the options that this is, and what is wrong with each field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from guardfleet.domain.reviews import QueueOptions
from guardfleet.errors import RejectedError
from guardfleet.store.labels import people
from guardfleet.store.labels.people import Person
from guardfleet.store.labels.queues import Queue

SOURCES = ("job", "sample")
NEW = QueueOptions("new")
NO_NUMBER = -1  # which every option refuses, and says what it takes
MOST_DIGITS = 9
MOST_BOXES = 500  # people who are offered; others are named by their ids
FIELDS = {"second_share": "second", "golden_share": "golden"}  # of options that are called otherwise in the form
NEVER = {
    "lacks": "may not review: never gets a text",
    "revoked": "revoked: never gets a text",
    "expired": "expired: never gets a text",
    "unknown": "no key of yours: never gets a text",
    "away": "not signed in now",
}


class WrongFieldsError(RejectedError):
    """The form is refused; `sentences` say why, by field."""

    def __init__(self, sentences: Mapping[str, str]) -> None:
        super().__init__(" ".join(sentences.values()))
        self.sentences = sentences


@dataclass(frozen=True, slots=True)
class Typed:
    """What the fields hold. `named`: the ids of those who review, by their boxes or in lines."""

    fields: Mapping[str, str]
    named: Sequence[str]


def shown(options: QueueOptions, **sources: str) -> Typed:
    """Return options as the form has them; a switch that is on has any value."""
    fields = {
        "name": options.name,
        "second": str(round(100 * options.second_share)),
        "golden": str(round(100 * options.golden_share)),
        "break_after": str(options.break_after),
        "lease_s": str(options.lease_s),
        "shows_verdict": "on" if options.shows_verdict else "",
        "is_open": "on" if options.is_open else "",
    }
    return Typed({**fields, **dict.fromkeys(SOURCES, ""), **sources}, options.reviewers or ())


def typed(ask: Ask) -> Typed:
    """Return what somebody has sent."""
    boxes = [value for name, value in ask.fields if name == "reviewer"]
    lines = [one.strip() for one in ask.form.get("reviewers", "").splitlines()]
    named = dict.fromkeys(one for one in (*boxes, *lines) if one)
    return Typed({name: ask.form.get(name, "") for name in shown(NEW).fields}, tuple(named))


def options(given: Typed, *, is_open: bool) -> QueueOptions:
    """Return the options that it is. Raises WrongFieldsError with what is wrong in each field."""
    fields = given.fields
    wanted: dict[str, Any] = {
        "name": fields["name"].strip(),
        "reviewers": tuple(given.named) or None,
        "second_share": _whole(fields["second"], 10) / 100,
        "golden_share": _whole(fields["golden"], 0) / 100,
        "break_after": _whole(fields["break_after"], NEW.break_after),
        "lease_s": _whole(fields["lease_s"], NEW.lease_s),
    }
    wrong: dict[str, str] = {}
    for name, value in wanted.items():
        try:
            QueueOptions(**{"name": NEW.name, name: value})
        except RejectedError as error:
            wrong[FIELDS.get(name, name)] = str(error)
    if wrong:
        raise WrongFieldsError(wrong)
    return QueueOptions(**wanted, shows_verdict=bool(fields["shows_verdict"]), is_open=is_open)


async def show(ask: Ask, queue: Queue | None, given: Typed, wrong: RejectedError | None = None) -> Response:
    """Show the form as it is filled in, with what is wrong in it."""
    known = await ask.of(people.named, ask.db, ask.caller.tenant_id, given.named)
    known |= {who: one for who, one in (await ask.of(people.may_review, ask.db, ask.caller.tenant_id)).items() if who not in known}
    boxes = list(known.values())[:MOST_BOXES]
    offered = {one.who for one in boxes}
    return ask.render(
        "review/queue.html", HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK, queue=queue, typed=given.fields,
        boxes=[(one, one.who in given.named, note(one)) for one in sorted(boxes, key=_by_name)],
        others=[who for who in given.named if who not in offered], wrong=_by_field(wrong),
    )  # fmt: skip


def _by_field(wrong: RejectedError | None) -> Mapping[str, str]:
    """Return why the form is refused, by field; "" for what is about none."""
    if wrong is None or isinstance(wrong, WrongFieldsError):
        return {} if wrong is None else wrong.sentences
    param = wrong.param or ""
    return {FIELDS.get(param, param): str(wrong)}


def note(person: Person) -> str | None:
    """Return what is to be known of somebody who is named, in English."""
    return NEVER.get(person.standing)


def _by_name(person: Person) -> tuple[bool, str, str]:
    return person.name is None, person.name or "", person.who


def _whole(text: str, otherwise: int) -> int:
    text = text.strip()
    if not text:
        return otherwise
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else NO_NUMBER
