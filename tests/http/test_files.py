"""Uploaded files: encrypted, read in parts, taken in by any process, deleted in time; invalid bodies are refused."""

import gzip
import json
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec  # type: ignore[import-untyped]
import pytest
from backports import zstd
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.server import create_app
from api.services.file_ingestion import FileIntakes
from api.services.file_storage import CHUNK_BYTES, Contents
from guardfleet.domain import ids
from guardfleet.domain.states import JobState
from guardfleet.errors import ConfigurationError, RetryableError
from guardfleet.security.encryption import OVERHEAD_BYTES, Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import files, keys
from guardfleet.store.jobs import creation, views
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.fleet import until
from tests.services.stored import new_job, scalar

KEYRING = Keyring(SECRET_KEY)


@pytest.fixture
def api_settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(
        database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, shard_texts=4, max_text_bytes=1000,
        files_max_bytes=200_000, api_max_body_bytes=200_000,
    )  # fmt: skip


@pytest.fixture
def client(api_settings: Settings, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    key = keys.create(db, keyring, name="test")
    with TestClient(create_app(api_settings), raise_server_exceptions=False, headers={"authorization": f"Bearer {key}"}) as made:
        yield made


def lines(n: int) -> bytes:
    return b"\n".join(json.dumps({"id": f"r{i}", "text": f"text {i}"}).encode() for i in range(n))


def upload(client: TestClient, data: bytes, **headers: str) -> str:
    answer = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", data)}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return Contents(str(tmp_path_factory.mktemp("files")), KEYRING)


@given(
    size=st.sampled_from([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 7]),
    start=st.integers(0, 2 * CHUNK_BYTES + 9),
    length=st.integers(0, CHUNK_BYTES + 9) | st.none(),
)
def test_any_part_of_a_content_reads_as_it_was_written(contents: Contents, size: int, start: int, length: int | None) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    file_id, data_key = uuid.uuid4(), KEYRING.new_data_key()
    with contents.writer(file_id, data_key) as writer:
        writer.write(data[: size // 3])
        writer.write(data[size // 3 :])
        writer.close()
    stop = None if length is None else start + length
    assert b"".join(contents.read(file_id, data_key, size=size, start=start, stop=stop)) == data[start:stop]
    contents.delete(file_id)
    contents.delete(file_id)


def test_a_content_that_was_meddled_with_does_not_open(tmp_path: pathlib.Path) -> None:
    contents, file_id, data_key = Contents(str(tmp_path), KEYRING), uuid.uuid4(), KEYRING.new_data_key()
    with contents.writer(file_id, data_key) as writer:
        writer.write(b"secret words " * 200_000)
        writer.close()
    stored = tmp_path / file_id.hex
    whole = stored.read_bytes()
    assert b"secret" not in whole
    piece = CHUNK_BYTES + OVERHEAD_BYTES
    for bad in (whole[:-1], whole[piece : 2 * piece] + whole[:piece] + whole[2 * piece :], whole[: 2 * piece]):
        stored.write_bytes(bad)
        with pytest.raises(ConfigurationError):
            list(contents.read(file_id, data_key, size=writer.size))
    with pytest.raises(ConfigurationError):  # cut off between two pieces, the size changed to match
        list(contents.read(file_id, data_key, size=2 * CHUNK_BYTES))


class Broken(MemoryFileSystem):
    """An object store whose library has errors of its own, as S3's has, and makes a bucket where it is asked for a folder."""

    protocol = "broken"
    makes: ClassVar[list[str]] = []
    is_away = False

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.makes.append(path)

    def _open(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_away:
            raise EndpointError
        return super()._open(*args, **kwargs)

    def rm_file(self, path: str) -> None:
        if self.is_away:
            raise EndpointError
        super().rm_file(path)


class EndpointError(Exception):
    pass


def test_an_object_store_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("broken", Broken, clobber=True)
    contents, file_id, data_key = Contents("broken://bucket/files", KEYRING), uuid.uuid4(), KEYRING.new_data_key()
    data = b"0123456789" * (CHUNK_BYTES // 4)
    with contents.writer(file_id, data_key) as writer:
        writer.write(data)
        writer.close()
    assert Broken.makes == []
    assert b"".join(contents.read(file_id, data_key, size=len(data), start=7, stop=len(data) - 3)) == data[7:-3]
    with pytest.raises(FileNotFoundError):
        list(contents.read(uuid.uuid4(), data_key, size=1))
    monkeypatch.setattr(Broken, "is_away", True)
    for attempt in (
        lambda: contents.writer(uuid.uuid4(), data_key),
        lambda: list(contents.read(file_id, data_key, size=len(data))),
        lambda: contents.delete(file_id),
    ):
        with pytest.raises(RetryableError, match="EndpointError"):
            attempt()
    monkeypatch.setattr(Broken, "is_away", False)
    contents.delete(file_id)
    contents.delete(file_id)
    for url in ("abfs://needs-a-package", "nonsense://x"):
        with pytest.raises(ConfigurationError, match="files_url: "):
            Contents(url, KEYRING)


def test_an_upload_that_is_cut_off_leaves_nothing(client: TestClient, api_settings: Settings, db: Database) -> None:
    for body, code in (
        (lines(3), None),
        (b"", "empty_file"),
        (b"\n \n", "empty_file"),
        (b"id,text\n1,x", "invalid_jsonl"),
        (b'"' + b"x" * 90_000, "invalid_jsonl"),
        (lines(9000), "too_large"),
    ):
        answer = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", body)})
        assert answer.json().get("error", {}).get("code") == code, answer.text
    assert len(list((api_settings.data_dir / "files").iterdir())) == 1
    assert scalar(db, "select count(*) from file where state = 1") == 1
    head = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\n'
    half = head + b'Content-Disposition: form-data; name="file"; filename="../../x"\r\n\r\n' + lines(3)
    answer = client.post("/v1/files", content=half, headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.json()["error"]["code"] in ("missing_file", "invalid_multipart")
    assert len(list((api_settings.data_dir / "files").iterdir())) == 1
    without = client.post("/v1/files", files=[("file", ("in.jsonl", lines(1)))])
    assert without.json()["error"]["code"] == "missing_purpose"


def test_a_part_of_a_file_is_had_by_range(client: TestClient) -> None:
    data = lines(20)
    url = f"/v1/files/{upload(client, data)}/content"
    whole = client.get(url)
    etag = whole.headers["etag"]
    assert whole.content == data
    for wanted, part in (("bytes=5-9", data[5:10]), ("bytes=5-", data[5:]), ("bytes=-7", data[-7:]), ("bytes=0-99999", data)):
        answer = client.get(url, headers={"range": wanted})
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["content-range"].endswith(f"/{len(data)}")
    for bad in ("bytes=99999-", "bytes=9-5", "bytes=x-"):
        assert client.get(url, headers={"range": bad}).status_code == 416
    assert client.get(url, headers={"if-none-match": etag}).status_code == 304
    assert client.get(url, headers={"range": "bytes=1-2", "if-range": '"other"'}).status_code == 200


def test_a_retried_upload_makes_one_file(client: TestClient) -> None:
    first = upload(client, lines(2))
    assert upload(client, lines(2), **{"x-stainless-retry-count": "1"}) == first
    assert upload(client, lines(3), **{"x-stainless-retry-count": "1"}) != first
    assert upload(client, lines(2)) != first


def test_an_intake_that_its_process_left_is_gone_on_with_by_another(
    client: TestClient, api_settings: Settings, db: Database
) -> None:
    file = files.get(db, ids.FILE.parse(upload(client, lines(40))), tenant_id=1)
    opened = creation.create(db, KEYRING, new_job(name="left", input_file_id=file.public_id), max_backlog=1000)
    contents = Contents(str(api_settings.data_dir / "files"), KEYRING)
    dying = FileIntakes(db, KEYRING, api_settings, contents)
    dying.stop()  # as soon as it looks, in the middle of the file
    with pytest.raises(RetryableError):
        dying._take(opened, file.public_id)
    assert views.get_by_id(db, opened.id).state is JobState.INGESTING
    until(lambda: views.get_by_id(db, opened.id).state is JobState.RUNNING, what="the job taken in by the client's own process")
    assert views.get_by_id(db, opened.id).total == 40


def test_a_line_without_an_end_is_one_refused_line(client: TestClient) -> None:
    data = b'{"id": "a", "text": "x"}\n{"id": "b", "text": "' + b"y" * 100_000 + b'"}\n{"id": "c", "text": "z"}'
    asked = {"input_file_id": upload(client, data), "endpoint": "/v1/moderations", "completion_window": "24h"}
    batch = client.post("/v1/batches", json=asked).json()["id"]
    found = until(lambda: (got := client.get(f"/v1/batches/{batch}").json())["in_progress_at"] and got, what="the intake")
    assert [(error["line"], error["code"]) for error in found["errors"]["data"]] == [(2, "too_large")]
    same = client.post("/v1/batches", content=data, headers={"content-type": "application/jsonl"}).json()
    assert same["errors"] == found["errors"]
    assert same["request_counts"] == found["request_counts"] == {"total": 3, "completed": 0, "failed": 1}


def test_a_batch_of_a_file_that_was_deleted_meanwhile_fails(client: TestClient, api_settings: Settings, db: Database) -> None:
    label = upload(client, lines(4))
    opened = creation.create(db, KEYRING, new_job(name="x", input_file_id=ids.FILE.parse(label)), max_backlog=1000)
    client.delete(f"/v1/files/{label}")
    intakes = FileIntakes(db, KEYRING, api_settings, Contents(str(api_settings.data_dir / "files"), KEYRING))
    intakes._take(opened, ids.FILE.parse(label))
    job = views.get_by_id(db, opened.id)
    assert (job.state, job.reason) == (JobState.FAILED, "there is no such file.")


def test_files_go_when_their_time_is_over(client: TestClient, api_settings: Settings, db: Database) -> None:
    label = upload(client, lines(1))
    with db.begin() as connection:
        connection.execute("update file set expires_at = now() - interval '1 second'")
    intakes = FileIntakes(db, KEYRING, api_settings, Contents(str(api_settings.data_dir / "files"), KEYRING))
    assert files.expire(db, files.overdue(db)) == 1
    intakes._removed_at = -1e9
    intakes._remove_left()
    assert client.get(f"/v1/files/{label}").status_code == 404
    assert list((api_settings.data_dir / "files").iterdir()) == []
    assert scalar(db, "select data_key is null from file") is True
    assert files.left(db) == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_body_is_taken_and_a_bomb_is_not(client: TestClient, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zstd.compress
    headers = {"content-type": "application/jsonl", "content-encoding": encoding}
    taken = client.post("/v1/batches", content=pack(lines(9)), headers=headers)
    assert taken.json()["request_counts"]["total"] == 9
    twice = client.post("/v1/batches", content=pack(lines(9) + b"\n") + pack(b'{"id": "other", "text": "x"}'), headers=headers)
    assert twice.json()["request_counts"]["total"] == 10
    bomb = client.post("/v1/batches", content=pack(b"\n" * 300_000_000), headers=headers)
    assert (bomb.status_code, bomb.json()["error"]["code"]) == (413, "too_large")
    empty = client.post("/v1/batches", content=pack(b"") * 1000, headers=headers)
    assert (empty.status_code, empty.json()["error"]["code"]) == (413, "too_large")  # 20 kB of them, each of which takes time
    cut = client.post("/v1/batches", content=pack(lines(500))[:-9], headers=headers)
    assert (cut.status_code, cut.json()["error"]["code"]) == (400, "invalid_encoding")
