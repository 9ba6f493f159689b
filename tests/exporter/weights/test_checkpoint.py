"""Files of weights, sound and foul: what is read, and that nothing in them ever runs."""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from exporter.weights import checkpoint, entries, pickle_scan, safetensors_header, torch_zip
from runtimes.errors import ArtifactError, IntegrityError, ResourceError, RexportError, UnsafeArtifactError
from tests.refusals import refuses

REPO = Path(__file__).resolve().parents[3]


def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"conv1.weight": torch.randn(4, 3, 3, 3, generator=generator), "fc.bias": torch.arange(5.0)}


def save_zip(content: object, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_safetensors(content: dict[str, Tensor], path: Path) -> None:
    safetensors.torch.save_file(content, path)


SAVERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "zip": save_zip,
    "legacy": save_legacy,
    "safetensors": save_safetensors,
}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert list(left) == list(right)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=0)


def refusal(path: Path, code: str | None = None, *values: object) -> RexportError:
    """The error that reading ends in; its message is one line that names the file and advises nothing unsafe.

    With a ``code`` it has that one, and names the values.
    """
    with pytest.raises(RexportError) as caught:
        checkpoint.read(path)
    assert code in (None, caught.value.code)
    assert [value for value in values if str(value) not in str(caught.value)] == []
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert "weights_only" not in message
    return caught.value


def rezip(
    source: Path, target: Path, change: Callable[[str, bytes], bytes] = lambda _, content: content, **how: int
) -> None:
    """Copies an archive entry by entry; ``change`` gets each name and content, ``how`` goes to ``ZipFile``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **how) as new:  # type: ignore[call-overload]
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize("extension", ["pt", "safetensors", "txt"])
def test_each_format_is_told_by_its_content(
    tmp_path: Path, saver: Callable[[dict[str, Tensor], Path], None], extension: str
) -> None:
    path = tmp_path / f"weights.{extension}"
    saver(state(), path)
    loaded = checkpoint.read(path).tensors
    assert_same({name: loaded[name] for name in state()}, state())


@pytest.mark.parametrize("key", entries.CONTAINERS)
@pytest.mark.parametrize("saver", [save_zip, save_legacy])
def test_a_training_checkpoint_gives_its_weights(
    tmp_path: Path, key: str, saver: Callable[[object, Path], None]
) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6])
    content = {
        "epoch": 7,
        "best": 0.93,
        "name": "net",
        key: model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "losses": list(range(100_000 if key == "net" else 10)),
    }
    saver(content, tmp_path / "run.ckpt")
    stored = checkpoint.read(tmp_path / "run.ckpt")
    assert_same(stored.tensors, dict(model.state_dict()))
    assert (stored.entry, stored.averages) == (key, ())


def test_buffers_of_an_optimizer_are_no_averaged_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    buffers = {name: torch.zeros_like(tensor) for name, tensor in model.named_parameters()}
    torch.save({"model": model.state_dict(), "momentum": buffers}, tmp_path / "run.ckpt")
    stored = checkpoint.read(tmp_path / "run.ckpt")
    assert (stored.entry, stored.averages) == ("model", ())


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS)
def test_a_weights_file_is_told_by_its_beginning(
    tmp_path: Path, saver: Callable[[dict[str, Tensor], Path], None]
) -> None:
    saver(state(), tmp_path / "weights")
    assert checkpoint.is_weights_file(tmp_path / "weights")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89PNG", b"\x08\x07\x12\x07pytorch:"])
def test_other_files_do_not_begin_like_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "best.pth").write_bytes(content)
    assert not checkpoint.is_weights_file(tmp_path / "best.pth")
    assert not checkpoint.is_weights_file(tmp_path)
    assert not checkpoint.is_weights_file(tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("path", "stem"),
    [("runs/best.pth", "best"), ("best.pth.TAR", "best"), ("last.v2.ckpt", "last.v2"), ("best", "best")],
)
def test_an_artifact_is_named_after_its_weights(path: str, stem: str) -> None:
    assert checkpoint.stem(path) == stem


def test_a_program_is_no_weights_file(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "net.pt2")
    assert not checkpoint.is_weights_file(tmp_path / "net.pt2")


def test_a_long_name_is_refused(tmp_path: Path) -> None:
    save_zip({"a." * 300: torch.ones(1)}, tmp_path / "w.pt")
    refusal(tmp_path / "w.pt", "entry-name-long", "600")


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        (nn.Linear(2, 2), "a whole module"),
        (argparse.Namespace(lr=0.1), "settings"),
    ],
)
def test_what_the_pickle_holds_is_named(tmp_path: Path, content: object, meaning: str) -> None:
    save_zip({"state_dict": content}, tmp_path / "w.pt")
    refusal(tmp_path / "w.pt", "pickle-calls-code", f"({meaning}", "save only the weights")


def test_parameters_become_plain_tensors(tmp_path: Path) -> None:
    save_zip({"w": nn.Parameter(torch.ones(2))}, tmp_path / "w.pt")
    tensor = checkpoint.read(tmp_path / "w.pt").tensors["w"]
    assert type(tensor) is Tensor
    assert not tensor.requires_grad


@pytest.mark.parametrize(("file", "count"), [("cifar10-resnet20.th", 97), ("cifar10-resnet56.th", 277)])
def test_published_legacy_files_are_read(file: str, count: int) -> None:
    path = REPO.parent / "shared" / "data" / file
    if not path.exists():
        pytest.skip(f"{file} is not on this machine")
    assert len(checkpoint.read(path).tensors) == count


# What is no weights file ----------------------------------------------------------------------------------------------


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name in names:
            new.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "code", "kind"),
    [
        (b"", "weights-unrecognised", "empty"),
        (b"\n<!DOCTYPE html><html>", "weights-unrecognised", "HTML"),
        (b"<html><body>404", "weights-unrecognised", "HTML"),
        (_tar(), "weights-unrecognised", "tar"),
        (_zip("inner.pt"), "weights-unrecognised", "inner.pt"),
        (_zip(), "weights-unrecognised", "empty zip"),
        (b"\0" * 100, "weights-unrecognised", "zeros"),
        (b"PK", "weights-unrecognised", "zip archive"),
        (bytes(range(140, 204)), "weights-unrecognised", "8c 8d 8e"),
        (pickle.dumps({"a": 1}, 2), "foreign-pickle", "torch.save"),
        (pickle.dumps({"a": 1}, 4), "foreign-pickle", "torch.save"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes, code: str, kind: str) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    error = refusal(path, code)
    assert isinstance(error, ArtifactError)
    assert kind in error.what


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS)
def test_every_truncation_is_refused(tmp_path: Path, saver: Callable[[dict[str, Tensor], Path], None]) -> None:
    saver(state(), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / "cut.pt"
    for size in {0, 1, 4, 8, 9, *range(0, len(whole), 64), len(whole) - 1}:
        path.write_bytes(whole[:size])
        error = refusal(path)
        assert isinstance(error, ArtifactError), size
        assert "truncated" in str(error) or "empty" in str(error) or "damaged" in str(error), (size, str(error))


def test_folders_pipes_devices_and_absent_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path, tmp_path / "pipe.pt", Path("/dev/zero"), tmp_path / "none.pt"):
        assert isinstance(refusal(path), ResourceError)
    with refuses(ResourceError, "file-access-failed") as caught:
        checkpoint.read(tmp_path / "none.pt")
    assert isinstance(caught.value, ResourceError)
    assert caught.value.errno == 2


def test_a_file_past_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.truncate(checkpoint.MAX_FILE_BYTES + 1)
    assert isinstance(refusal(path), ResourceError)


@pytest.mark.parametrize(
    ("content", "code", "value"),
    [
        ([torch.ones(2)], "state-dict-missing", "list"),
        ({"epoch": 3}, "tensors-missing", "state_dict"),
        ({"w": torch.ones(2), "note": "x"}, "entry-not-tensor", "'note'"),
        ({"model": {"w": torch.ones(2), "n": 3}}, "entry-not-tensor", "'n' under 'model'"),
        ({1: torch.ones(2)}, "entry-not-tensor", "'1'"),
        ({"w": torch.ones(*[1] * 9)}, "tensor-rank-excessive", "9"),
        ({"w": torch.ones(2, device="meta")}, "weights-not-tensors", "meta device"),
        ({"w": torch.eye(2).to_sparse()}, "weights-not-tensors", "sparse"),
    ],
)
def test_odd_content_is_refused(tmp_path: Path, content: object, code: str, value: str) -> None:
    save_zip(content, tmp_path / "odd.pt")
    refusal(tmp_path / "odd.pt", code, value)


# Nothing runs ---------------------------------------------------------------------------------------------------------


def _trust(stream: object) -> None:
    del stream


class Payload:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def _plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def _zip_protocol_4(content: object, path: Path) -> None:
    torch.save(content, path, pickle_protocol=4)


@pytest.mark.parametrize("saver", [save_zip, save_legacy, _plain_pickle, _zip_protocol_4])
@pytest.mark.parametrize("forced", [(), ("NO_",), ("",), ("", "NO_")])
def test_a_payload_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saver: Callable[[object, Path], None], forced: tuple[str, ...]
) -> None:
    for word in forced:
        monkeypatch.setenv(f"TORCH_FORCE_{word}WEIGHTS_ONLY_LOAD", "1")
    canary = tmp_path / "ran"
    saver({"state_dict": state(), "x": Payload(canary)}, tmp_path / "evil.pt")
    error = refusal(tmp_path / "evil.pt")
    assert isinstance(error, UnsafeArtifactError)
    # A plain pickle of tensors is blocked at the tensors already.
    assert "'posix.mkdir'" in str(error) or "'torch.storage._load_from_bytes'" in str(error)
    assert "safetensors.torch.save_file(model.state_dict()" in str(error)
    assert not canary.exists()


def test_the_payload_would_run(tmp_path: Path) -> None:
    save_zip(Payload(tmp_path / "ran"), tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_pytorchs_own_restriction_holds_behind_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.setattr(pickle_scan, "check", _trust)
    save_zip({"x": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    assert isinstance(refusal(tmp_path / "evil.pt"), ArtifactError)
    assert not (tmp_path / "ran").exists()


def test_contradictory_variables_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_zip(state(), tmp_path / "w.pt")
    for word in ("", "NO_"):
        monkeypatch.setenv(f"TORCH_FORCE_{word}WEIGHTS_ONLY_LOAD", "1")
    refusal(tmp_path / "w.pt", "torch-variables-contradict", "TORCH_FORCE_")


@pytest.mark.parametrize("saver", [save_zip, save_legacy])
def test_harmless_objects_are_refused_with_the_way_out(tmp_path: Path, saver: Callable[[object, Path], None]) -> None:
    import numpy as np

    contents = {
        "argparse.Namespace": {"args": argparse.Namespace(lr=0.1), "state_dict": state()},
        "numpy": {"best": np.float64(0.5), "state_dict": state()},
        "torch.nn.modules.linear.Linear": nn.Linear(2, 2),
    }
    for name, content in contents.items():
        saver(content, tmp_path / "odd.pt")
        error = refusal(tmp_path / "odd.pt", "pickle-calls-code", name)
        assert isinstance(error, UnsafeArtifactError)
        assert error.hint == pickle_scan.RESAVE


def test_programs_are_refused_by_kind(tmp_path: Path) -> None:
    example = (torch.ones(1, 2),)
    torch.export.save(torch.export.export(nn.Linear(2, 2), example), tmp_path / "program.pt2")
    (tmp_path / "script.pt").write_bytes(_zip("script/data.pkl", "script/code/net.py", "script/constants.pkl"))
    for name, kind in (("program.pt2", "pt2-program"), ("script.pt", "torchscript-program")):
        assert isinstance(refusal(tmp_path / name, kind), UnsafeArtifactError)


def test_a_real_torchscript_file_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, warnings, torch; warnings.simplefilter('ignore');"
        "torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "script.pt")], check=True)
    refusal(tmp_path / "script.pt", "torchscript-program")


def test_deep_nesting_cannot_crash_the_process(tmp_path: Path) -> None:
    nested = b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s."
    save_zip(state(), tmp_path / "sound.pt")
    rezip(tmp_path / "sound.pt", tmp_path / "deep.pt", lambda name, old: nested if name.endswith("data.pkl") else old)
    refusal(tmp_path / "deep.pt", "pickle-too-deep", 64)


def test_a_doubling_pickle_is_refused(tmp_path: Path) -> None:
    double = b"c_codecs\nencode\n(" + b"Xx\0\0\0" + b"a" * 120 + b"X\x03\0\0\0hext\x85R"
    save_zip(state(), tmp_path / "sound.pt")
    rezip(
        tmp_path / "sound.pt",
        tmp_path / "bomb.pt",
        lambda name, old: b"\x80\x02}X\1\0\0\0a" + double + b"s." if name.endswith("data.pkl") else old,
    )
    refusal(tmp_path / "bomb.pt", "pickle-calls-code", "'_codecs.encode'")


# Damage ---------------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_any_entry_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_zip(state(), path)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as old:
        places = {entry.filename: whole.find(old.read(entry), entry.header_offset + 30) for entry in old.infolist()}
    for name, place in places.items():
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert isinstance(refusal(path, "zip-checksum-mismatch", f"'{name}'"), IntegrityError)


def test_checksums_that_were_never_recorded_are_no_damage(tmp_path: Path) -> None:
    was = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        save_zip(state(), tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(was)
    assert_same(checkpoint.read(tmp_path / "w.pt").tensors, state())


def test_one_erased_checksum_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_zip(state(), path)
    with zipfile.ZipFile(path) as old:
        crc = struct.pack("<I", next(entry.CRC for entry in old.infolist() if entry.filename.endswith("/data/0")))
    path.write_bytes(path.read_bytes().replace(crc, b"\0\0\0\0"))
    assert isinstance(refusal(path), IntegrityError)


# Swollen files --------------------------------------------------------------------------------------------------------


def test_honest_compression_is_read(tmp_path: Path) -> None:
    save_zip(state(), tmp_path / "stored.pt")
    rezip(tmp_path / "stored.pt", tmp_path / "w.pt", compression=zipfile.ZIP_DEFLATED)
    assert_same(checkpoint.read(tmp_path / "w.pt").tensors, state())


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    save_zip({"w": torch.zeros(1 << 20)}, tmp_path / "stored.pt")
    rezip(tmp_path / "stored.pt", tmp_path / "bomb.pt", compression=zipfile.ZIP_DEFLATED)
    refusal(tmp_path / "bomb.pt", "zip-bomb")


def test_a_lying_size_is_refused(tmp_path: Path) -> None:
    save_zip({"w": torch.zeros(1 << 20)}, tmp_path / "stored.pt")
    path = tmp_path / "bomb.pt"
    rezip(tmp_path / "stored.pt", path, compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 4 << 20), struct.pack("<I", 100)))
    assert isinstance(refusal(path), ArtifactError)


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_zip({"a": torch.zeros(64), "b": torch.ones(64)}, tmp_path / "w.pt")
    with zipfile.ZipFile(path) as old:
        first, second = (entry for entry in old.infolist() if "/data/" in entry.filename and "." not in entry.filename)
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    offset = struct.pack("<I", second.header_offset)
    place = content.index(offset, content.index(second.filename.encode(), directory) - 4)
    path.write_bytes(content[:place] + struct.pack("<I", first.header_offset) + content[place + 4 :])
    refusal(path, "zip-entries-overlap")


def test_duplicate_entries_are_refused(tmp_path: Path) -> None:
    save_zip(state(), tmp_path / "sound.pt")
    path = tmp_path / "w.pt"
    rezip(tmp_path / "sound.pt", path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("sound/DATA.pkl", b"other")
    refusal(path, "zip-names-ambiguous")


def test_a_long_list_of_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_zip(state(), tmp_path / "w.pt")
    monkeypatch.setattr(torch_zip, "MAX_ENTRIES", 3)
    refusal(tmp_path / "w.pt", "zip-entries-excessive", 3)
    monkeypatch.setattr(torch_zip, "MAX_DIRECTORY_BYTES", 40)
    refusal(tmp_path / "w.pt", "zip-directory-large", 40)
    monkeypatch.undo()
    monkeypatch.setattr(torch_zip, "MAX_PICKLE_BYTES", 40)
    refusal(tmp_path / "w.pt", "zip-pickle-large", 40)


@pytest.mark.parametrize("saver", [save_zip, save_legacy])
def test_a_giant_without_strides_is_refused_before_any_copy(
    tmp_path: Path, saver: Callable[[object, Path], None]
) -> None:
    saver({"w": torch.ones(1).expand(1 << 17, 1 << 17)}, tmp_path / "giant.pt")
    assert (tmp_path / "giant.pt").stat().st_size < 4096
    refusal(tmp_path / "giant.pt", "tensors-overlap", "68,719,476,736")


def test_many_names_of_one_storage_are_refused(tmp_path: Path) -> None:
    shared = torch.ones(1 << 14)
    save_zip({f"w{i}": shared for i in range(300)}, tmp_path / "many.pt")
    refusal(tmp_path / "many.pt", "tensors-overlap")


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_zip(state(), tmp_path / "w.pt")
    monkeypatch.setattr(entries, "MAX_TENSORS", 1)
    refusal(tmp_path / "w.pt", "too-many-entries", 2, 1)


# safetensors headers --------------------------------------------------------------------------------------------------

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def _container(text: bytes, data: bytes = b"\0" * 8) -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def _entry(**changes: object) -> bytes:
    return _container(json.dumps({"a": GOOD["a"] | changes}).encode())


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        (struct.pack("<Q", 1 << 40) + b'{"a', "safetensors-truncated", ["1,099,511,627,776"]),
        (_container(b'{"a": tru}'), "safetensors-header-invalid", []),
        (_container(b'{"a"' + b":[" * 100_000 + b"}"), "safetensors-header-invalid", []),
        (_container(b'{"a": NaN' + b"1" * 10_000 + b"}"), "safetensors-header-invalid", []),
        (_container(json.dumps(GOOD).encode()[:-1] + b', "a": {}}'), "safetensors-header-invalid", ["name 'a'"]),
        (_container(b'{"a": 1}'), "tensor-entry-fields", ["'a'", "data_offsets"]),
        (_entry(dtype="F4"), "tensor-dtype-unknown", ["'a'", "F4"]),
        (_entry(dtype=["F32"]), "tensor-dtype-unknown", ["'a'", "['F32']"]),
        (_entry(shape=[-2]), "tensor-numbers-invalid", ["'a'"]),
        (_entry(shape=[True]), "tensor-numbers-invalid", ["'a'"]),
        (_entry(shape=[1 << 62, 1 << 62]), "tensor-extent-wrong", ["'a'", "0 to 8"]),
        (_entry(shape=[1] * 9), "tensor-rank-excessive", ["'a'", 9]),
        (_entry(data_offsets=[0]), "tensor-numbers-invalid", ["'a'"]),
        (_entry(data_offsets=[8, 0]), "tensor-extent-wrong", ["8 to 0"]),
        (_entry(data_offsets=[4, 12]), "tensor-offset-wrong", ["'a'", 4, 0]),
        (_container(json.dumps(GOOD).encode(), b"\0" * 9), "tensor-bytes-mismatch", [8, 9]),
        (_container(json.dumps(GOOD).encode(), b"\0" * 7), "tensor-bytes-mismatch", ["truncated", 8, 7]),
        (_container(json.dumps(GOOD | {"b": GOOD["a"]}).encode()), "tensor-offset-wrong", ["'b'", 0, 8]),
    ],
)
def test_a_bad_header_is_refused_by_its_fault(tmp_path: Path, content: bytes, code: str, values: list[object]) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    refusal(path, code, *values)


def test_a_huge_header_is_refused_unparsed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(_container(b'{"a":' + b" " * safetensors_header.MAX_HEADER_BYTES))
    refusal(path, "safetensors-header-large", "8,388,608")
    rows = ",".join(
        f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(safetensors_header.MAX_TENSORS + 1)
    )
    path.write_bytes(_container(b"{" + rows.encode() + b"}", b""))
    refusal(path, "too-many-tensors", "20,000")


def test_the_largest_variants_names_are_within_the_limits() -> None:
    from exporter.models.layers import layers
    from exporter.models.variants import VARIANTS

    largest = max(sum(6 if layer.norm else 2 for layer in layers(row)) for row in VARIANTS.values())
    assert largest == 7_208 < safetensors_header.MAX_TENSORS


# Random damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS)
def test_random_damage_ends_in_our_errors(tmp_path: Path, saver: Callable[[dict[str, Tensor], Path], None]) -> None:
    import random

    source, path = tmp_path / "whole", tmp_path / "w"
    saver({name: tensor[:1] for name, tensor in state().items()}, source)
    whole = source.read_bytes()
    choose = random.Random(5)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(choose.randint(1, 3)):
            damaged[choose.randrange(len(damaged))] = choose.choice((0, 1, 0x7F, 0xFF, choose.randrange(256)))
        path.write_bytes(damaged)
        _read_or_refuse(path)


def test_random_pickles_with_right_checksums_end_in_our_errors(tmp_path: Path) -> None:
    import random

    source, path = tmp_path / "whole", tmp_path / "w"
    save_zip(OrderedDict(copy.deepcopy(state())), source)
    choose = random.Random(6)

    def damage(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        damaged = bytearray(content)
        for _ in range(choose.randint(1, 3)):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        return bytes(damaged)

    for _ in range(300):
        rezip(source, path, damage)
        _read_or_refuse(path)


def _read_or_refuse(path: Path) -> None:
    problem: RexportError | None = None
    try:
        assert all(type(tensor) is Tensor for tensor in checkpoint.read(path).tensors.values())
    except RexportError as error:
        problem = error
    if problem is not None:
        assert str(path) in str(problem)
        assert problem.exit_code in (3, 6)
        assert "weights_only" not in str(problem)
