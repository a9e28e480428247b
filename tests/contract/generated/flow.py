"""A client that openapi-python-client made, from an upload to verdicts; prints what came of it as JSON. mypy checks it first."""

import json
import os
import sys
from io import BytesIO

from made import AuthenticatedClient
from made.api.batches import create_batch, retrieve_batch
from made.api.files import create_file, download_file
from made.api.moderations import create_moderation
from made.api.results import list_results
from made.models import (
    Batch,
    BatchRequest,
    BatchRequestEndpoint,
    CreateFileBody,
    CreateFileBodyPurpose,
    Moderation,
    ModerationRequest,
    Problem,
    VerdictPage,
)
from made.models import File as StoredFile
from made.types import UNSET, File, Unset

api = AuthenticatedClient(base_url=os.environ["BASE"], token=os.environ["KEY"])

stored = create_file.sync(
    client=api,
    body=CreateFileBody(
        purpose=CreateFileBodyPurpose.BATCH, file=File(payload=BytesIO(os.environ["LINES"].encode()), file_name="in.jsonl")
    ),
)
assert isinstance(stored, StoredFile), stored
asked = BatchRequest(input_file_id=stored.id, endpoint=BatchRequestEndpoint("/v1/moderations"))
batch = create_batch.sync(client=api, body=asked, idempotency_key="once")
assert isinstance(batch, Batch), batch
again = create_batch.sync(client=api, body=asked, idempotency_key="once")
assert isinstance(again, Batch), again

verdicts: list[tuple[str | None, str]] = []
after: str | Unset = UNSET
is_complete = False
while not is_complete:
    page = list_results.sync(batch.id, client=api, after=after, prefer="wait=5")
    assert isinstance(page, VerdictPage), page
    verdicts += [(verdict.id, verdict.severity.value) for verdict in page.data]
    after, is_complete = page.next_, page.complete
inline = create_batch.sync(client=api, body=File(payload=BytesIO(os.environ["LINES"].encode())), name="inline")
assert isinstance(inline, Batch), inline
ended = retrieve_batch.sync(batch.id, client=api)
assert isinstance(ended, Batch), ended
judged = create_moderation.sync(client=api, body=ModerationRequest(input_="a text"))
assert isinstance(judged, Moderation), judged
unknown = retrieve_batch.sync("batch_0", client=api)
assert isinstance(unknown, Problem), unknown
sent = download_file.sync_detailed(stored.id, client=api, range_="bytes=0-9")
sys.stdout.write(
    json.dumps({
        "same": again.id == batch.id, "verdicts": verdicts, "status": ended.status.value,
        "completed": ended.request_counts.completed, "flagged": judged.results[0].flagged,
        "score": judged.results[0].category_scores.violence, "unknown": unknown.error.code,
        "part": [sent.status_code, len(sent.content)], "inline": [inline.name, inline.request_counts.total],
    })
)  # fmt: skip
