"""Sources and outputs in S3, against a real server."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from runtimes.errors import CheckFailedError, ResourceError, RexportError, UsageError
from runtimes.labelling.output import SUCCESS
from runtimes.labelling.parts import part_name
from runtimes.labelling.stores import ObjectStore, open_store
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.labelling.conftest import BUCKET
from tests.runtimes.labelling.jobs import digests, request, rows, run, write_images
from tests.runtimes.labelling.test_sources import archive


def upload(s3: Any, folder: Path, prefix: str = "in") -> str:
    """Uploads the files of a folder; the URI of the prefix."""
    for path in folder.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}")
    return f"s3://{BUCKET}/{prefix}"


def download(s3: Any, prefix: str, folder: Path) -> Path:
    """Downloads what is below a prefix."""
    for found in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")["Contents"]:
        if found["Key"].endswith("/"):
            continue  # Arrow's mark of a folder, after a deletion
        path = folder / found["Key"].removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(BUCKET, found["Key"], str(path))
    return folder


def test_a_prefix_gives_the_bytes_of_a_folder_also_to_a_bucket(
    s3: Any, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    source, artifact = write_images(tmp_path / "photos", 25, ("ant hill", "béee")), fake_artifact().path
    run(request(source, artifact, tmp_path / "out"))
    uri = upload(s3, source)
    run(request(f"{uri}/", artifact, f"s3://{BUCKET}/out"))
    assert run(request(uri, artifact, f"s3://{BUCKET}/out")).progress.executed == 0
    s3.delete_object(Bucket=BUCKET, Key=f"out/{part_name(1)}")
    assert run(request(uri, artifact, f"s3://{BUCKET}/out")).progress.executed == 10
    local, remote = digests(tmp_path / "out"), digests(download(s3, "out", tmp_path / "remote"))
    assert {name for name in local if local[name] != remote[name]} == {"_job.json"}
    assert set(local) == set(remote)
    assert SUCCESS in remote


def test_a_list_and_an_archive_lead_into_the_bucket(s3: Any, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 5), fake_artifact().path
    uri = upload(s3, source)
    lines = [
        f"{uri}/ant/0000.png",
        f"{uri}/ant/gone.png",
        "s3://no-such-bucket/a.png",
        str(source / "bee" / "0001.png"),
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    run(request(tmp_path / "list.txt", artifact, tmp_path / "out"))
    assert [row["error_code"] for row in rows(tmp_path / "out")] == [None, "object-missing", "object-missing", None]
    (tmp_path / "tar").mkdir()
    archive(tmp_path / "tar" / "photos.tar", source)
    packed = f"{upload(s3, tmp_path / 'tar', 'tar')}/photos.tar"
    run(request(packed, artifact, tmp_path / "packed"))
    assert [row["error"] for row in rows(tmp_path / "packed")] == [None] * 5


def test_what_is_missing_in_a_bucket_is_said_first(s3: Any, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    assert s3.list_buckets()["Buckets"]
    for source in (f"s3://{BUCKET}/nothing", "s3://no-such-bucket/in"):
        with refuses(UsageError, "source-missing", source):
            run(request(source, fake_artifact().path, tmp_path / "out"))
    with refuses(UsageError, "store-unknown"):
        run(request("s3://", fake_artifact().path, tmp_path / "out"))


def test_refused_access_names_the_variables_to_set(
    s3: Any, s3_address: str, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    uri = upload(s3, write_images(tmp_path / "photos", 2))
    _authorise(s3_address, b"0")
    try:
        with refuses(ResourceError, "store-access-denied", "AWS_ACCESS_KEY_ID"):
            run(request(uri, fake_artifact().path, tmp_path / "out"))
    finally:
        _authorise(s3_address, b"1000000000")


def _authorise(address: str, calls: bytes) -> None:
    """Makes the server check the rights of a caller after so many calls."""
    asked = urllib.request.Request(
        f"{address}/moto-api/reset-auth", calls, {"Content-Type": "text/plain"}, method="POST"
    )
    with urllib.request.urlopen(asked) as reply:
        assert reply.status == 200


def test_a_server_that_is_gone_ends_the_job_without_rows(
    s3: Any, fake_artifact: FakeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost network says nothing about the images, which must not get rows with errors."""
    uri = upload(s3, write_images(tmp_path / "photos", 25))
    monkeypatch.setattr("runtimes.labelling.stores.ObjectStore.read", _unreachable)
    with refuses(ResourceError, "store-unreachable"):
        run(request(uri, fake_artifact().path, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").glob("part-*")] == []


def _unreachable(store: ObjectStore, path: str) -> bytes:
    """What a read comes to while the network is down; its library waits for a minute first."""
    with store._translating(path):
        raise OSError("curlCode: 7, Couldn't connect to server")


def test_an_object_is_there_when_it_is_whole(s3: Any) -> None:
    store = open_store(f"s3://{BUCKET}/a")
    store.write("b/c", b"1" * (6 << 20))
    assert (store.kind("b/c"), store.kind("b"), store.kind("none")) == ("file", "folder", "missing")
    assert s3.head_object(Bucket=BUCKET, Key="a/b/c")["ContentLength"] == 6 << 20
    store.delete("b/c")
    store.delete("b/c")
    assert store.kind("b/c") == "missing"


def test_errors_of_keys_count_against_the_limit(s3: Any, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    assert s3.list_buckets()["Buckets"]
    (tmp_path / "list.txt").write_text("".join(f"s3://{BUCKET}/{number}.png\n" for number in range(10)))
    from runtimes.labelling.label import ErrorLimit

    asked = request(tmp_path / "list.txt", fake_artifact().path, tmp_path / "out", max_errors=ErrorLimit(5, False))
    with refuses(CheckFailedError, "too-many-errors", 10, 5):
        run(asked)


def test_a_refused_job_leaves_no_object(s3: Any, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 2)
    store = open_store(f"s3://{BUCKET}/out")
    with pytest.raises(RexportError):
        run(request(source, fake_artifact().path, store.root, backend="tensorrt"))
    found = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    assert [key for key in found if key != "out/"] == []  # Arrow's mark of a folder, after a deletion
    assert store.entries() == []
