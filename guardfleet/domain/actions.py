"""What the audit trail can say: the actions that it records, and the kinds of those who act."""

from collections.abc import Mapping
from types import MappingProxyType

KEY, PERSON, COMMAND, PROGRAM, API, DISPATCHER, WORKER = "key", "person", "command", "program", "api", "dispatcher", "worker"
UNKNOWN = "unknown"  # the default of the column: a version before 0018 recorded it
ACTORS: Mapping[str, str] = MappingProxyType(
    {
        KEY: "an API key, by its public id",
        PERSON: "somebody who signed in to the console by OpenID Connect, by the subject's name there",
        COMMAND: "a command, by its user and host",
        PROGRAM: "an application with the direct client, by its user and host",
        API: "an API process by itself, by its host",
        DISPATCHER: "a dispatcher, by its host",
        WORKER: "a worker process, webhooks included, by its host",
        UNKNOWN: "somebody before migration 0018, by the database's user",
    }
)
# The word before the dot is the kind of the subject; no two kinds of subjects share ids.
ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "job.create": "a job was submitted",
        "job.take_over": "an interrupted intake was resumed",
        "job.abandon": "an intake failed or nobody resumed it; its texts were deleted",
        "job.cancel": "a job was cancelled",
        "job.run_out": "a job was ended because its completion window was over",
        "job.pause": "a job was paused",
        "job.resume": "a paused job was resumed",
        "job.retry": "the failed texts of a job were given to a new job",
        "job.prioritise": "a job's priority was changed",
        "job.export": "verdicts, refused lines or a result file were read as a whole; recorded when it begins",
        "job.read": "texts of a job were shown to somebody: one, by its place, or those that a search for words found",
        "job.purge": "a job's texts and data key were deleted",
        "job.expire": "a job and its verdicts were deleted",
        "job.erase": "a job was deleted on request, with its texts and verdicts",
        "file.create": "a file was uploaded",
        "file.download": "an uploaded file was read; recorded when it begins",
        "file.delete": "a file and its data key were deleted",
        "file.expire": "a file, or an interrupted upload, was deleted because its time was over",
        "file.erase": "a file and its data key were deleted because a text that was erased on request came from it",
        "endpoint.create": "a webhook endpoint was created",
        "endpoint.update": "a webhook endpoint was changed",
        "endpoint.rotate": "a webhook endpoint got a new secret",
        "endpoint.test": "a test event was sent to a webhook endpoint",
        "endpoint.resend": "deliveries of a webhook endpoint were made again",
        "endpoint.disable": "a webhook endpoint was disabled because its deliveries failed",
        "endpoint.delete": "a webhook endpoint was deleted with its deliveries",
        "key.create": "an API key was created",
        "key.rotate": "an API key got a successor",
        "key.revoke": "an API key was revoked",
        "session.begin": "somebody signed in to the console",
        "session.end": "somebody signed out of the console",
        "secret_key.pin": "the installation's secret key was pinned for the first time",
        "secret_key.rotate": "the installation's secret key was replaced",
        "secret_key.retire": "everything but API keys was moved to the new secret key",
        "policy.create": "a version of a policy was stored",
        "policy.activate": "a version of a policy was applied from then on",
        "policy.deactivate": "a policy was no longer applied",
        "policy.redecide": "a version of a policy was applied to stored verdicts; recorded when it begins",
        "prompt_policy.create": "a version of a policy for prompts was stored",
        "list.create": "a version of a list was stored",
        "list.activate": "a version of a list was looked for from then on",
        "list.deactivate": "a list was no longer looked for",
        "list.export": "a list's entries were read as a whole",
        "label.import": "human labels of a job's texts were stored",
        "label.export": "human labels were read as a whole; recorded when it begins",
        "sample.create": "texts of a job were drawn to be labelled",
        "sample.export": "a sample was written with the texts themselves; recorded when it begins",
        "deployment.create": "a model was to be served, tried or compared from then on",
        "deployment.advance": "a canary had agreed with the model beside it for long enough, and was rolled out",
        "deployment.promote": "a shadow or a canary was rolled out",
        "deployment.settle": "all workers served a model that was rolled out",
        "deployment.halt": "a model was not taken, or no longer tried, because it failed or disagreed",
        "deployment.stop": "a model was no longer tried, compared or rolled out",
        "deployment.roll_back": "the model from before was served again",
        "model.register": "a worker served a model, a revision or a policy for the first time",
        "schema.upgrade": "the database was migrated",
        "erasure.begin": "texts were to be erased on request; recorded when it begins",
        "erasure.finish": "an erasure had removed all that it found",
        "erasure.rewrite": "the tables that an erasure had changed were rewritten: its old bytes are gone",
        "hold.create": "texts were put under a legal hold",
        "hold.release": "a legal hold was released",
        "audit.expire": "rows of the audit trail were deleted because their retention was over",
    }
)
LEAST_DAYS = 30  # PostgreSQL refuses to delete younger rows (migration 0018)
