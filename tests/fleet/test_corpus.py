"""The 57 thousand rows of the corpus through both brokers: every row gets exactly one verdict."""

import pathlib

from guardfleet.client.direct import DirectClient
from guardfleet.settings import Settings
from producer.submit import submit_file
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet
from tests.services.outcome import assert_exactly_once, finished
from tests.services.patience import patience


@with_broker("rabbitmq")
def test_every_row_of_the_corpus_gets_exactly_one_verdict(settings: Settings, shared: pathlib.Path, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings)
    with fleet(settings, tmp_path, ("worker",), ("dispatcher",)):
        submission = submit_file(producer, str(shared / "data" / "corpus.jsonl"))
        job = finished(producer, submission.job, timeout_s=patience(120))
    assert (job.total, job.rejected, job.error) == (57_157, 0, 0)
    assert_exactly_once(producer, job)
    producer.db.close()
