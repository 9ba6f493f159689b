"""The forms of a source on this machine: how they are recognised, listed and read."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow
import pytest
from pyarrow import parquet

from runtimes.errors import ArtifactError, InputError, UsageError
from runtimes.labelling.sources.opening import recognise_source
from runtimes.labelling.sources.source import ListedImage
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.labelling.jobs import request, rows, run, write_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images. Shared: not to be changed."""
    return write_images(tmp_path_factory.mktemp("photos"), 30)


def names(folder: Path) -> list[str]:
    """The images of a folder in the order of a listing."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def listed(source: Path) -> list[ListedImage]:
    """The listing of a source."""
    return list(recognise_source(str(source)).open().images())


def labels(source: Path, artifact: Path, out: Path) -> dict[str, object]:
    """The probability of each image, by the name that the output gives to it; no image has an error."""
    run(request(source, artifact, out))
    found = rows(out)
    assert [row["error"] for row in found] == [None] * len(found)
    return {row["uri"]: row["probability"] for row in found}


def test_a_folder_is_listed_folder_by_folder(photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "deep")
    for name in ("ant.png", "ant/zoo/b.JPG", "ant/.hidden/c.png", "ant/d.txt", "ant/.e.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(photos / "ant" / "0000.png", folder / name)
    (folder / "loop").symlink_to(folder)
    found = [image.uri for image in listed(folder)]
    assert found[-1] == "bee/0029.png"
    assert sorted(found) == sorted([*names(photos), "ant.png", "ant/zoo/b.JPG"])
    assert found.index("ant/zoo/b.JPG") == 15


def test_a_name_that_is_not_utf8_is_listed_with_escapes(photos: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(name)).write_bytes((photos / "ant" / "0000.png").read_bytes())
    assert [image.uri for image in listed(tmp_path)] == ["caf\\xe9.png"]
    source = recognise_source(str(tmp_path)).open()
    (image,) = source.images()
    (content,) = source.contents([image])
    with open(name, "rb") as file:
        assert source.read(image, content) == file.read()


def archive(path: Path, folder: Path, mode: str = "w") -> Path:
    """Packs a folder as tar does, with entries for folders and files of other kinds."""
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        packed.add(folder, arcname=".")
        packed.addfile(tarfile.TarInfo("ant/.hidden.png"))
        link = tarfile.TarInfo("ant/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0000.png"
        packed.addfile(link)
    return path


def test_a_tar_archive_is_read_where_it_lies(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    artifact = fake_artifact().path
    packed = archive(tmp_path / "photos.tar", photos)
    found = labels(packed, artifact, tmp_path / "packed")
    assert found == labels(photos, artifact, tmp_path / "plain")
    assert sorted(os.listdir(tmp_path)) == ["packed", "photos.tar", "plain", "scripted.fake", *_rest(tmp_path)]


def _rest(folder: Path) -> list[str]:
    """The files that belong to the artifact."""
    return sorted(name for name in os.listdir(folder) if name.startswith("scripted.fake."))


def test_a_folder_of_archives_names_the_archive(photos: Path, tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        archive(tmp_path / name, photos)
    found = [image.uri for image in listed(tmp_path)]
    assert len(found) == 60
    assert {uri.split("/")[0] for uri in found} == {"a.tar", "b.tar"}


def test_a_changed_archive_is_another_listing(photos: Path, tmp_path: Path) -> None:
    packed = archive(tmp_path / "photos.tar", photos)
    before = recognise_source(str(packed)).open().seal()
    with packed.open("ab") as file:
        file.write(bytes(512))
    assert recognise_source(str(packed)).open().seal() != before


def test_a_damaged_or_compressed_archive_is_refused(photos: Path, tmp_path: Path) -> None:
    packed = archive(tmp_path / "photos.tar", photos)
    content = packed.read_bytes()
    (tmp_path / "photos.tgz").write_bytes(gzip.compress(content))
    with refuses(ArtifactError, "source-compressed"):
        listed(tmp_path / "photos.tgz")
    packed.write_bytes(content[:2000])
    with refuses(ArtifactError, "archive-unreadable"):
        listed(packed)


def encoded(photos: Path) -> list[bytes]:
    """The contents of the images."""
    return [(photos / name).read_bytes() for name in names(photos)]


@pytest.mark.parametrize("groups", [7, 100])
def test_a_table_of_encoded_images_is_read_by_rows(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path, groups: int
) -> None:
    artifact, table = fake_artifact().path, tmp_path / "photos.parquet"
    parquet.write_table(pyarrow.table({"bytes": encoded(photos), "uri": names(photos)}), table, row_group_size=groups)
    assert labels(table, artifact, tmp_path / "table") == labels(photos, artifact, tmp_path / "plain")


def test_a_table_of_hugging_face_is_read(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    artifact, table = fake_artifact().path, tmp_path / "photos.parquet"
    images = [{"bytes": content, "path": None} for content in encoded(photos)]
    parquet.write_table(pyarrow.table({"image": images, "label": [3] * 30}), table, row_group_size=9)
    plain = labels(photos, artifact, tmp_path / "plain")
    assert list(labels(table, artifact, tmp_path / "table").values()) == list(plain.values())
    assert {image.target for image in listed(table)} == {"3"}
    assert listed(table)[-1].uri == "photos.parquet#29"


def test_a_table_of_uris_is_read(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    artifact, table = fake_artifact().path, photos.parent / f"{tmp_path.name}.parquet"
    uris = [f"{photos.name}/ant/0000.png", str(photos / "bee" / "0001.png"), (photos / "bee" / "0003.png").as_uri()]
    parquet.write_table(pyarrow.table({"uri": pyarrow.array(uris).dictionary_encode()}), table)
    assert list(labels(table, artifact, tmp_path / "out")) == uris


def test_a_folder_of_tables_is_read_in_order(photos: Path, tmp_path: Path) -> None:
    for part in (1, 0):
        parquet.write_table(pyarrow.table({"bytes": encoded(photos)[part::2]}), tmp_path / f"{part}.parquet")
    assert [image.uri for image in listed(tmp_path)][14:16] == ["0.parquet#14", "1.parquet#0"]


def test_missing_values_of_a_table_are_rows_with_errors(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    artifact = fake_artifact().path
    parquet.write_table(pyarrow.table({"bytes": [encoded(photos)[0], None]}), tmp_path / "bytes.parquet")
    parquet.write_table(pyarrow.table({"uri": ["", None, "ftp://host/a.png"]}), tmp_path / "uris.parquet")
    for name in ("bytes", "uris"):
        run(request(tmp_path / f"{name}.parquet", artifact, tmp_path / name))
    assert [row["error_code"] for row in rows(tmp_path / "bytes")] == [None, "image-file-empty"]
    assert [row["error_code"] for row in rows(tmp_path / "uris")] == ["uri-empty", "uri-empty", "store-unknown"]


def test_a_table_without_the_columns_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"path": ["a.png"], "image": ["b"]}), tmp_path / "a.parquet")
    with refuses(ArtifactError, "table-columns-missing", "path, image"):
        listed(tmp_path / "a.parquet")


def test_a_damaged_table_is_refused(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"bytes": encoded(photos)}), path)
    path.write_bytes(path.read_bytes()[:1000])
    with refuses(ArtifactError, "table-damaged", "a.parquet"):
        listed(path)


def test_damaged_statistics_of_another_column_do_not_matter(photos: Path, tmp_path: Path) -> None:
    """pyarrow's description of that column would end the process."""
    images, path = encoded(photos), tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"bytes": images, "note": ["a"] * len(images)}), path)
    optional, required = b"\x25\x02\x18\x04note", b"\x25\x00\x18\x04note"  # the schema, in Thrift's compact protocol
    content = path.read_bytes()
    assert content.count(optional) == 1
    path.write_bytes(content.replace(optional, required))
    source = recognise_source(str(path)).open()
    assert list(source.contents(list(source.images()))) == images
    seal = source.seal()
    source.close()
    path.write_bytes(content)
    assert seal != recognise_source(str(path)).open().seal()


def test_a_table_with_fewer_rows_than_it_says_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged count: the listing has been made, and rows are missing afterwards."""
    parquet.write_table(pyarrow.table({"bytes": encoded(photos)}), tmp_path / "a.parquet")
    source = recognise_source(str(tmp_path / "a.parquet")).open()
    images = list(source.images())
    fewer = tmp_path / "fewer.parquet"
    parquet.write_table(pyarrow.table({"bytes": encoded(photos)[:2]}), fewer)
    monkeypatch.setattr(source, "_opened", ("a.parquet", parquet.ParquetFile(fewer)))
    with refuses(ArtifactError, "table-rows-missing", "a.parquet", f"{len(images) - 2} rows"):
        list(source.contents(images))


def test_a_list_keeps_its_order_and_starts_from_its_folder(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    lines = [f"{photos}/bee/0001.png", "ant/0002.png", "bee/0001.png", " ", "ant/0000.png"]
    (photos.parent / "list.txt").write_bytes("\r\n".join(lines).encode())
    shutil.move(photos.parent / "list.txt", photos / "list.txt")
    found = labels(photos / "list.txt", fake_artifact().path, tmp_path / "out")
    assert list(found) == [lines[0], lines[1], lines[2], lines[4]]
    assert found[lines[0]] == found[lines[2]]
    (photos / "list.txt").unlink()


def test_a_single_image_is_no_source(photos: Path) -> None:
    with refuses(InputError, "source-unknown", "0000.png"):
        recognise_source(str(photos / "ant" / "0000.png"))


def test_the_kind_of_a_source_can_be_given(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "mixed")
    archive(tmp_path / "mixed" / "more.tar", photos)
    shutil.copy(photos / "ant" / "0000.png", tmp_path / "mixed")
    assert recognise_source(str(tmp_path / "mixed")).kind == "folder"
    assert recognise_source(str(tmp_path / "mixed"), "tar").names == ("more.tar",)
    with refuses(ArtifactError, "source-kind-mismatch", ".parquet"):
        recognise_source(str(tmp_path / "mixed"), "parquet")


def test_an_unknown_store_is_a_usage_error() -> None:
    with refuses(UsageError, "store-unknown", "ftp://host/a"):
        recognise_source("ftp://host/a")


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.zeros((1, 1), np.uint8)).save(buffer, "PPM")
    folder = write_images(tmp_path / "photos", 1)
    (folder / "bomb.pgm").write_bytes(b"P5\n60000 60000\n255\n" + bytes(100))
    run(request(folder, fake_artifact().path, tmp_path / "out"))
    assert {row["uri"]: row["error_code"] for row in rows(tmp_path / "out")} == {
        "ant/0000.png": None,
        "bomb.pgm": "image-too-large",
    }
