"""What somebody looks for as conditions of statements: of jobs `j`, of finished shards `d`, and of verdicts `v`, of one %(day)s.

Those of jobs and shards let through whatever has a verdict to find, and pass by, unread, what has none for certain.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guardfleet.domain.detection import Outcome
from guardfleet.domain.verdict import Model, Severity
from guardfleet.policy.document import Action
from guardfleet.store.policy.decisions import OF_ACTION, WITH_ACTION
from guardfleet.store.words import FLAGGED_VERDICT
from guardfleet.verdicts.wanted import PROBABILITIES, Wanted

# Of a shard's verdicts `done_at` is one instant, that of its commit's beginning: commits can end in another order.
SLACK = dt.timedelta(hours=1)
OF_SEVERITY = {
    Severity.SAFE: f"v.severity = {Severity.SAFE}",
    Severity.CONTROVERSIAL: f"v.severity = {Severity.CONTROVERSIAL}",
    Severity.UNSAFE: f"v.severity = {Severity.UNSAFE}",
    Severity.ERROR: f"v.severity >= {Severity.ERROR}",
    Severity.UNRATED: f"v.severity <= {Severity.UNRATED}",
}
COUNTED = {Outcome.UNLABELLED.label: "unlabelled", Outcome.TOO_SHORT.label: "too_short", Outcome.ERROR.label: "error"}
OUTCOMES = {outcome.label: outcome for outcome in Outcome if outcome is not Outcome.LABELLED}
FLAGGED = f"v.{FLAGGED_VERDICT}"  # as the partial index has it


@dataclass(slots=True)
class Conditions:
    """The conditions, the values of their parameters, and what a shard is joined with to tell its texts' actions."""

    of_jobs: list[str] = field(default_factory=lambda: ["j.next_ord > 0"])
    of_shards: list[str] = field(default_factory=lambda: ["true"])
    of_verdicts: list[str] = field(default_factory=lambda: ["true"])
    values: dict[str, Any] = field(default_factory=dict)
    decided: str = ""

    @classmethod
    def of(cls, wanted: Wanted, models: Mapping[int, Model]) -> "Conditions":
        """Return what must hold; `models`: all that have served."""
        made = cls()
        made._of_guard(wanted)
        if wanted.action is not None:
            made._of_action(Action[wanted.action.upper()])
        if wanted.detector is not None:
            made._of_detector(wanted.detector, wanted.label, models)
        made._of_time(wanted.since, wanted.until)
        if wanted.row_id is not None:
            made.of_verdicts.append("v.id = %(row_id)s")
            made.values["row_id"] = wanted.row_id
        if wanted.keeps_texts:
            made.of_jobs.append("j.purged_at is null and j.data_key is not null and not j.keeps_nothing")
        return made

    def _of_guard(self, wanted: Wanted) -> None:
        if wanted.severity is not None:
            self.of_jobs.append(f"j.{wanted.severity.label} > 0")
            self.of_verdicts += [OF_SEVERITY[wanted.severity], *([FLAGGED] if wanted.severity >= Severity.CONTROVERSIAL else [])]
        if wanted.category is not None:
            self.of_jobs.append("j.controversial + j.unsafe > 0")
            self.of_verdicts += [FLAGGED, f"v.severity < {Severity.ERROR}", f"v.categories & {int(wanted.category)} <> 0"]
        if wanted.error is not None:
            self.of_jobs.append("j.error > 0")
            self.of_verdicts += [FLAGGED, f"v.severity >= {Severity.ERROR}", "v.error = %(error)s"]
            self.values["error"] = wanted.error
        if wanted.probability is not None:
            place, least, most = wanted.probability
            is_within = f"get_byte(v.probabilities, {place}) between {least} and {most}"
            self.of_verdicts.append(f"case when octet_length(v.probabilities) = {len(PROBABILITIES)} then {is_within} end")

    def _of_action(self, action: Action) -> None:
        self.of_shards.append(
            f"""exists (select from decision x where x.job_id = d.job_id and x.first_seq = d.first_seq and not x.shadow
                          and x.{OF_ACTION[action]} > 0)"""
        )
        self.decided = f"cross join lateral {WITH_ACTION} f"
        self.of_verdicts.append("get_byte(f.outcomes, v.seq - s.first_seq) = any(f.wanted)")
        self.values["actions"] = [int(action)]

    def _of_detector(self, detector: str, label: str | None, models: Mapping[int, Model]) -> None:
        own = {number: model for number, model in models.items() if model.detector == detector}
        places = {number: model.labels.index(label) for number, model in own.items() if label in model.labels}
        self.of_jobs.append("exists (select from unnest(j.detectors) e where split_part(e, '/', 1) = %(detector)s)")
        self.values |= {"detector": detector, "models": list(own), "labelling": list(places), "places": list(places.values())}
        if label is None:
            counted, said = "true", "true"
        elif label in OUTCOMES:
            counted, said = f"x.{COUNTED[label]} > 0", f"t.outcome = {OUTCOMES[label]}"
        else:
            named = "select from unnest(%(labelling)s::int2[], %(places)s::int2[]) q (model_id, place) where q.model_id"
            counted = f"exists ({named} = x.model_id and x.labelled[q.place + 1] > 0)"
            said = f"exists ({named} = t.model_id and q.place = t.label)"
        self.of_shards.append(
            f"""exists (select from detected x where x.job_id = d.job_id and x.first_seq = d.first_seq
                          and x.model_id = any(%(models)s::int2[]) and {counted})"""
        )
        self.of_verdicts.append(
            f"""v.seq = any(array(select t.seq from detection t
                                  where t.job_id = s.job_id and t.day = %(day)s and t.seq > s.after and t.seq < s.first_seq + s.n
                                    and t.model_id = any(%(models)s::int2[]) and {said}))"""
        )

    def _of_time(self, since: dt.datetime | None, until: dt.datetime | None) -> None:
        done = []
        if since is not None:
            self.of_jobs.append("j.progressed_at >= %(since)s - %(slack)s")
            done.append(">= %(since)s")
        if until is not None:
            self.of_jobs.append("j.started_at < %(until)s + %(slack)s")
            done.append("< %(until)s")
        if done:
            self.values |= {"since": since, "until": until, "slack": SLACK}
            within = " and ".join(f"t.done_at {one}" for one in done)
            self.of_shards.append(
                f"exists (select from verdict t where t.job_id = d.job_id and t.day = %(day)s and t.seq = d.first_seq and {within})"
            )
            self.of_verdicts += [f"v.done_at {one}" for one in done]
