"""Every face of a verdict is in the property test: whatever in the source could be one must say which face it is.

A new module that touches verdicts, a new route, format, command or column of the view fails here until it is listed: with a face of
`tests/services/faces.py` (pure) or `tests/store/test_faces.py` (through PostgreSQL), which are compared over random verdicts, or
with the reason why it is none.
"""

import ast
import pathlib
import re
from collections.abc import Iterator

from typer.main import get_command

from api.server import create_app
from guardfleet.cli.app import app
from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import load_settings
from guardfleet.store.schema.view import COLUMNS
from guardfleet.verdicts import export
from guardfleet.verdicts.encoding import Codes, StoredVerdict
from tests.services.faces import PURE
from tests.store.test_faces import STORED

ROOT = pathlib.Path(__file__).parents[2]
NO_FACE = "-"  # why it is none stands behind it
MODULES = {
    "api/openai/batch.py": "counters",
    "api/routes/files.py": "result files",
    "api/openai/categories.py": "moderation, moderation line",
    "api/routes/moderations.py": "moderation, json object",
    "api/services/interactive_moderation.py": "- hands pages on",
    "api/openai/result_files.py": "chat completion, moderation line, result files",
    "api/google/attributes.py": "perspective",
    "api/schemas/verdicts.py": "- describes answers, and makes none",
    "api/routes/perspective.py": "perspective",
    "api/routes/results.py": "json object, filtered pages, jsonl, csv, parquet",
    "guardfleet/cli/app.py": "- parses what was asked for",
    "guardfleet/cli/commands/evaluate.py": "evaluation",
    "guardfleet/cli/commands/evaluate_perspective.py": "perspective",
    "guardfleet/cli/commands/results.py": "jsonl, csv, parquet",
    "guardfleet/cli/commands/scan.py": "jsonl, csv, parquet",
    "guardfleet/cli/progress.py": "summary",
    "guardfleet/verdicts/cursors.py": "- places, not verdicts",
    "guardfleet/verdicts/export.py": "jsonl, csv, parquet",
    "guardfleet/__init__.py": "- names what is imported when asked for",
    "guardfleet/verdicts/filters.py": "- says which rows are wanted",
    "guardfleet/verdicts/page.py": "json object, fields",
    "guardfleet/verdicts/rationale.py": "rationale",
    "guardfleet/verdicts/rendering.py": "json object, fields",
    "guardfleet/store/jobs/figures.py": "summary",
    "guardfleet/report/contents.py": "fields",
    "guardfleet/report/rendering.py": "- draws what `contents` gathered",
    "guardfleet/jobs/trial.py": "- encodes what was decoded, for a policy",
    "api/console/pages/try_it.py": "fields",
    "guardfleet/store/jobs/interactive.py": "- hands pages on",
    "guardfleet/store/shards/handoff.py": "first opinion",
    "guardfleet/cli/bench/scratch.py": "- a benchmark's counts",
    "guardfleet/cli/bench/yardstick.py": "- copied as bytes",
    "guardfleet/store/shards/completion.py": "counters, webhook",
    "guardfleet/store/jobs/texts.py": "- puts texts beside rows",
    "guardfleet/store/newest.py": "export",
    "guardfleet/store/verdicts.py": "export, filtered pages, cache",
    "api/console/pages/verdicts.py": "- hands to templates what `fields` says",
    "guardfleet/store/browsing/conditions.py": "- conditions of statements",
    "guardfleet/store/browsing/details.py": "fields",
    "guardfleet/store/browsing/pages.py": "- finds rows, which `details` shows",
    "guardfleet/store/browsing/searching.py": "- finds rows, which `details` shows",
    "guardfleet/verdicts/wanted.py": "- says which rows are wanted",
    "guardfleet/store/words.py": "- conditions of statements",
    "guardfleet/store/schema/view.py": "view",
    "guardfleet/verdicts/encoding.py": "- what all others read through",
    "guardfleet/client/direct.py": "export",
    "guardfleet/lists/document.py": "- what an entry decides",
    "guardfleet/lists/matching.py": "- the interpretation: what a list decides",
    "worker/moderation/lookup.py": "- puts hits beside judgements",
    "guardfleet/policy/document.py": "- what may be asked of verdicts",
    "guardfleet/policy/evaluation.py": "- decides what to do with a verdict",
    "guardfleet/policy/facts.py": "- what rules read, compared with the interpretation in tests/property/test_policies.py",
    "guardfleet/policy/soundness.py": "- says which rules are none",
    "guardfleet/store/policy/decisions.py": "- what policies decided of verdicts",
    "guardfleet/domain/labels.py": "- what people say",
    "guardfleet/cli/commands/labels.py": "- what people say",
    "guardfleet/store/labels/labels.py": "- what people say; finds the text of a label",
    "guardfleet/store/labels/tasks.py": "- what people say; refuses erased texts",
    "guardfleet/domain/reviews.py": "- what people say",
    "guardfleet/jobs/reviewing.py": "fields",
    "api/console/pages/review/reviewing.py": "- words of `fields`",
    "api/console/pages/review/queues.py": "- what people say",
    "api/console/pages/review/text.py": "- puts texts beside rows",
    "guardfleet/store/labels/samples.py": "- hands two columns on",
    "guardfleet/store/labels/reviews.py": "- leaves out erased texts",
    "guardfleet/cli/commands/sample.py": "fields",
    "guardfleet/cli/tables.py": "- writes rows of labels and samples",
    "guardfleet/jobs/labelling.py": "- what people say",
    "guardfleet/jobs/simulation.py": "- counts what a policy would decide",
    "guardfleet/jobs/assessment.py": "evaluation",
    "guardfleet/jobs/sampling.py": "fields",
    "guardfleet/jobs/review.py": "fields",
    "guardfleet/sampling/population.py": "- how doubtful texts are, from what rules read",
    "guardfleet/sampling/figures.py": "evaluation",
    "guardfleet/jobs/retry.py": "- says which codes may be asked for",
    "guardfleet/jobs/overview.py": "- counts what rules read, for a job's page",
    "guardfleet/store/jobs/sampled.py": "- counts by metadata and by error code, for a job's page",
    "guardfleet/store/jobs/retries.py": "- finds the texts without a verdict",
    "guardfleet/store/erasure/search.py": "- finds texts by id and metadata",
    "guardfleet/store/erasure/texts.py": "- empties columns of verdicts",
    "guardfleet/store/erasure/whole_jobs.py": "- deletes a job's verdicts",
    "guardfleet/telemetry/metrics.py": "- names of labels",
    "api/routes/retries.py": "- says which codes may be asked for",
    "worker/engine/answer.py": "- the interpretation",
    "guardfleet/domain/cascade.py": "- decides who is asked again",
    "worker/engine/decoding/drafts.py": "- what the model is expected to say",
    "guardfleet/cli/evaluation.py": "evaluation",
    "worker/dispatch/poison.py": "- the interpretation of no answer",
    "worker/moderation/judge.py": "- the interpretation",
    "worker/moderation/interpretation.py": "- the interpretation",
    "worker/moderation/comparing.py": "- counts where two models agree",
    "worker/process/golden.py": "- checks a model against labelled rows",
    "worker/moderation/outcome.py": "- carries judgements to the store",
    "guardfleet/domain/detection.py": "- what detectors say",
    "guardfleet/verdicts/detections.py": "- what detectors say, compared in tests/store/test_detections.py",
    "worker/moderation/tally.py": "- counts what was written",
    "worker/webhooks/delivery.py": "webhook",
}
ROUTES = {
    "/v1/batches": "counters",
    "/v1/batches/{batch_id}": "counters",
    "/v1/batches/{batch_id}/cancel": "counters",
    "/v1/batches/{batch_id}/pause": "counters",
    "/v1/batches/{batch_id}/resume": "counters",
    "/v1/batches/{batch_id}/retry": "counters",
    "/v1/batches/{batch_id}/results": "json object, filtered pages",
    "/v1/batches/{batch_id}/download": "jsonl, csv, parquet",
    "/v1/batches/{batch_id}/events": "counters",
    "/v1/batches/{batch_id}/rejections": "- lines that were never judged",
    "/v1/files": "- input files",
    "/v1/files/{file_id}": "result files",
    "/v1/files/{file_id}/content": "result files, chat completion, moderation line",
    "/v1/moderations": "moderation",
    "/v1/moderate": "json object",
    "/v1/detect": "json object",
    "/v1/models": "- names of models",
    "/v1/models/{model}": "- one of them",
    "/v1alpha1/comments:analyze": "perspective",
    "/v1/audit": "- who did what",
    "/v1/prompt-policies": "- what detectors judge by",
    "/v1/prompt-policies/{name}@{version}": "- the same",
    "/v1/lists": "- what is looked for in texts",
    "/v1/lists/check": "- what is wrong with one",
    "/v1/lists/{name}@{version}": "- how many entries",
    "/v1/lists/{name}@{version}/entries": "- what an entry decides",
    "/v1/lists/{name}@{version}/hits": "- counts by entry",
    "/v1/lists/{name}@{version}/activate": "-",
    "/v1/lists/{name}@{version}/deactivate": "-",
    "/v1/policies": "- what to do with verdicts",
    "/v1/policies/check": "- what is wrong with one",
    "/v1/policies/schema": "- of documents",
    "/v1/policies/presets/{preset}": "- documents",
    "/v1/policies/test": "- counts what it would decide",
    "/v1/policies/{name}@{version}": "- a document",
    "/v1/policies/{name}@{version}/activate": "-",
    "/v1/policies/{name}@{version}/deactivate": "-",
    "/v1/redecisions": "- counts what it decided",
    "/v1/labels": "- what people say",
    "/v1/batches/{batch_id}/samples": "- how a sample was drawn",
    "/v1/samples/{sample_id}": "fields",
    "/v1/reviews": "fields",
    "/v1alpha1/comments:suggestscore": "- what a caller says",
    "/v1/erasures": "- counts of what was removed",
    "/v1/erasures/{erasure_id}": "- counts of what was removed",
    "/v1/verdicts": "- removes them, and answers with counts",
    "/v1/holds": "- what may not be removed",
    "/v1/holds/{hold_id}": "- one of them",
}
NO_VERDICTS = ("/v1/webhook_", "/livez", "/readyz", "/healthz")  # routes of endpoints and probes: their payloads are `webhook`
COMMANDS = {
    "scan": "jsonl, csv, parquet, summary",
    "submit": "summary",
    "jobs": "counters",
    "watch": "summary, counters",
    "status": "summary, counters",
    "results": "jsonl, csv, parquet",
    "evaluate": "evaluation",
    "report": "-",  # counts, and a few verdicts by `fields`
    "retry": "-", "plan": "-", "models": "-",
    "cancel": "-",
    "pause": "-", "resume": "-", "prioritise": "-", "up": "-", "worker": "-", "dispatcher": "-", "api": "-", "doctor": "-",
    "version": "-", "db": "-", "keys": "-", "bench": "-", "audit": "-", "policy": "-", "redecide": "-",
    "prompt-policy": "-", "lists": "-", "labels": "-",
    "sample": "fields", "reviews": "fields",
    "erase": "-", "erasures": "-", "hold": "-",
}  # fmt: skip
SOURCES = {
    "api.openai.categories", "api.openai.result_files", "guardfleet.verdicts.export", "guardfleet.verdicts.rationale",
    "guardfleet.verdicts.rendering", "guardfleet.verdicts.page", "guardfleet.store.verdicts", "guardfleet.store.newest",
    "guardfleet.verdicts.encoding",
}  # fmt: skip
WORDS = {"Severity", "Judgement", "Category", "category_names", "ERROR_CODES", "failure"}
TABLE = re.compile(r"\b(from|join|into|update|table|on) verdicts?\b", re.IGNORECASE)


def source() -> Iterator[tuple[str, ast.Module]]:
    for package in ("guardfleet", "worker", "producer", "api"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def touches_verdicts(module: ast.Module) -> bool:
    """Whether it imports a word of verdicts, or a module that has them, or speaks SQL of their table."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if node.module in SOURCES or {f"{node.module}.{name}" for name in names} & SOURCES:
                return True
            if node.module == "guardfleet.domain.verdict" and names & WORDS:
                return True
        if isinstance(node, ast.Import) and {alias.name for alias in node.names} & SOURCES:
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and TABLE.search(node.value):
            return True
    return False


def assert_faces(listed: dict[str, str]) -> None:
    """Each is a face that is tested, or says why it is none."""
    known = PURE.keys() | STORED.keys()
    for name, faces in listed.items():
        assert faces.startswith(NO_FACE) or set(faces.split(", ")) <= known, (name, faces)


def test_each_module_that_touches_verdicts_is_listed_with_its_faces() -> None:
    assert {path for path, module in source() if touches_verdicts(module)} == MODULES.keys()
    assert_faces(MODULES)


def test_each_route_is_listed_with_its_faces(tmp_path: pathlib.Path) -> None:
    settings = load_settings(database_url="postgresql://x@127.0.0.1:1/x", secret_key=new_secret_key(), data_dir=tmp_path)
    routes = {path for path in create_app(settings).openapi()["paths"] if not path.startswith(NO_VERDICTS)}
    assert routes == ROUTES.keys()
    assert_faces(ROUTES)


def test_each_command_is_listed_with_its_faces() -> None:
    assert set(get_command(app).commands) == COMMANDS.keys()  # type: ignore[attr-defined]
    assert_faces(COMMANDS)


def test_each_format_is_a_face() -> None:
    assert set(export.FORMATS) <= PURE.keys()


def test_each_face_is_of_something() -> None:
    listed = {face for faces in (*MODULES.values(), *ROUTES.values(), *COMMANDS.values()) for face in faces.split(", ")}
    assert PURE.keys() | STORED.keys() <= listed


def test_the_view_has_the_words_of_every_code() -> None:
    assert {name.removeprefix("category_odds") for name in Codes._fields} - {"", "probabilities"} <= COLUMNS.keys()


def test_codes_and_their_numbers_are_known_to_one_module_alone() -> None:
    codes = {name for name in StoredVerdict._fields if name.endswith("_code")}
    for path, module in source():
        if path == "guardfleet/verdicts/encoding.py":
            continue
        read = {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)} & codes
        assert not read, (path, read)
        if touches_verdicts(module):
            numbers = {node.value for node in ast.walk(module) if isinstance(node, ast.Constant) and type(node.value) is int}
            assert not numbers & {254, 255}, path


def test_judgements_of_tests_come_from_the_interpretation() -> None:
    for folder in ("tests", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "Judgement"], path
