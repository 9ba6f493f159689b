"""Files that are no weights: each message has the true cause, and a hint; bytes that no tensor holds are refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from exporter import cli
from exporter.models.variants import variant
from exporter.weights import checkpoint, foreign_files, matching, torch_zip, translation
from exporter.weights.entries import ANY_ENTRY, Selection, parse_digest
from exporter.weights.modules import NamedModule, load_state
from runtimes.errors import ArtifactError, IntegrityError, ModelMismatchError, RexportError, UsageError
from tests.conftest import SILENT
from tests.exporter.weights.foreign_files import FOREIGN, network, numpy_state, saved
from tests.refusals import refuses

PAYLOAD = b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."
"""A pickle that would run a command."""


def written(folder: Path, content: bytes) -> Path:
    path = folder / "weights.pth"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_message_has_the_true_cause(tmp_path: Path, kind: str) -> None:
    make, code, named = FOREIGN[kind]
    path = written(tmp_path, make())
    with pytest.raises(RexportError) as caught:
        matching.fit(translation.read(path).translation.tensors, variant("resnet20"), SILENT.notice)
    error = caught.value
    assert (error.code, error.exit_code) == (code, 4 if code == "tensor-dtype-wrong" else 3)
    assert named in str(error)
    assert error.hint
    assert "weights_only" not in str(error)


@pytest.mark.parametrize(("name", "module"), [("tiny.py", "tiny:"), ("nets/tiny.py", "nets.tiny:"), ("/x.py", "x:")])
def test_code_is_named_by_its_module(name: str, module: str) -> None:
    content = b"import torch\n" * 9
    what, hint = foreign_files.describe(io.BytesIO(content), Path(name), content, len(content))
    assert (what, f" {module}FACTORY" in hint) == ("Python code", True)


def test_the_unpacking_command_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    content = gzip.compress(saved(network()), mtime=0)
    path = written(tmp_path, content)
    with refuses(ArtifactError, "weights-unrecognised", "gunzip") as refusal:
        translation.read(path)
    subprocess.run(refusal.value.hint or "", shell=True, check=True)
    assert path.read_bytes() == content
    assert translation.read(tmp_path / "unpacked-weights.pth").translation.layout is not None


def test_a_name_with_the_marks_of_a_hint_is_one_word(tmp_path: Path) -> None:
    path = tmp_path / "{path};touch attacked;.pth"
    path.write_bytes(gzip.compress(saved(network()), mtime=0))
    with refuses(ArtifactError, "weights-unrecognised", "gunzip") as refusal:
        translation.read(path)
    subprocess.run(refusal.value.hint or "", shell=True, check=True, cwd=tmp_path)
    assert {place.name for place in tmp_path.iterdir()} == {path.name, "unpacked-{path};touch attacked;.pth"}


def test_each_kind_by_first_bytes_is_in_the_table() -> None:
    heads = [make()[:512] for make, _, _ in FOREIGN.values()]
    for kind in foreign_files.KINDS:
        if kind.start != b"vtrt":  # TensorRT-RTX, as TensorRT
            assert any(head.startswith(kind.start, kind.offset) for head in heads), kind.what


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in network().items()}
    found = translation.read(written(tmp_path, saved(state)))
    matching.fit(found.translation.tensors, variant("resnet20"), SILENT.notice)


def test_large_numpy_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_zip, "MAX_PICKLE_BYTES", 4096)
    state = {name: tensor.numpy() for name, tensor in network().items()}
    with refuses(ArtifactError, "weights-not-tensors", "NumPy arrays"):
        checkpoint.read(written(tmp_path, saved(state)))


def test_code_behind_harmless_content_is_unsafe(tmp_path: Path) -> None:
    content = numpy_state(2)[:-1] + b"cos\nsystem\n."
    with pytest.raises(RexportError) as caught:
        checkpoint.read(written(tmp_path, content))
    assert (caught.value.code, "system" in str(caught.value)) == ("pickle-calls-code", True)


# Bytes that no tensor holds -------------------------------------------------------------------------------------------


def hidden_in_zip(content: bytes) -> bytes:
    """The archive with the payload between its last entry and its list of entries."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.start_dir
    end = bytearray(content[start:])
    at = end.rindex(b"PK\x05\x06")
    end[at + 16 : at + 20] = (start + len(PAYLOAD)).to_bytes(4, "little")
    locator = end.rindex(b"PK\x06\x07")
    record = int.from_bytes(end[locator + 8 : locator + 16], "little") - start
    end[locator + 8 : locator + 16] = (start + record + len(PAYLOAD)).to_bytes(8, "little")
    end[record + 48 : record + 56] = (start + len(PAYLOAD)).to_bytes(8, "little")
    return content[:start] + PAYLOAD + bytes(end)


@pytest.mark.parametrize("form", ["legacy", "zip, middle", "zip, end", "zip, start", "safetensors"])
def test_bytes_beside_the_tensors_are_refused(tmp_path: Path, form: str) -> None:
    zip_file, legacy = saved(network()), saved(network(), _use_new_zipfile_serialization=False)
    import safetensors.torch

    contents = {
        "legacy": legacy + PAYLOAD,
        "zip, middle": hidden_in_zip(zip_file),
        "zip, end": zip_file + PAYLOAD,
        "zip, start": PAYLOAD + zip_file,
        "safetensors": safetensors.torch.save(network()) + PAYLOAD,
    }
    path = written(tmp_path, contents[form])
    with pytest.raises(ArtifactError):
        checkpoint.read(path)
    if form in ("legacy", "zip, middle"):
        with pytest.raises(ArtifactError, match=f"{len(PAYLOAD)}|hides"):
            checkpoint.read(path)


# One foreign name -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.", "encoder.body."])
def test_one_foreign_tensor_is_named(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{name}": tensor for name, tensor in network().items()} | {"temperature": torch.ones(1)}
    with refuses(ModelMismatchError, "tensors-outside-prefix", prefix, "temperature"):
        translation.read(written(tmp_path, saved(state)))


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.", "encoder.body."])
def test_so_it_is_for_a_module_of_the_user(tmp_path: Path, prefix: str) -> None:
    named = NamedModule.of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)))
    state = {f"{prefix}{name}": tensor for name, tensor in named.module.state_dict().items()}
    load_state(named, written(tmp_path, saved(state)), ANY_ENTRY, SILENT.notice)
    with refuses(ModelMismatchError, "tensors-outside-prefix", prefix, "temperature"):
        load_state(named, written(tmp_path, saved(state | {"temperature": torch.ones(1)})), ANY_ENTRY, SILENT.notice)
    del state[f"{prefix}0.bias"]
    with refuses(ModelMismatchError, "weights-misfit", "1 missing (0.bias)"):
        load_state(named, written(tmp_path, saved(state)), ANY_ENTRY, SILENT.notice)


# The expected digest --------------------------------------------------------------------------------------------------


def test_the_bytes_that_are_read_have_the_digest(tmp_path: Path) -> None:
    import safetensors.torch

    for content in (
        saved(network()), saved(network(), _use_new_zipfile_serialization=False), safetensors.torch.save(network())
    ):  # fmt: skip
        digest = hashlib.sha256(content).hexdigest()
        path = written(tmp_path, content)
        assert checkpoint.read(path, sha256=digest).sha256 == digest
        with refuses(IntegrityError, "weights-digest-mismatch", digest, "0" * 64, "weights.pth"):
            checkpoint.read(path, sha256="0" * 64)


def test_a_digest_is_taken_in_its_usual_forms() -> None:
    assert parse_digest(f"SHA256:{'AB' * 32}") == parse_digest(f" {'ab' * 32}\n") == "ab" * 32
    for text in ("", "ab", "zz" * 32, "ab" * 33):
        with refuses(UsageError, "expected-digest-invalid"):
            parse_digest(text)


def test_a_file_that_changes_meanwhile_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = saved(network())
    path = written(tmp_path, good)
    check = torch_zip.check

    def check_late(file: object, size: int) -> None:
        path.write_bytes(bytes(len(good)))
        check(file, size)  # type: ignore[arg-type]

    monkeypatch.setattr(torch_zip, "check", check_late)
    assert len(checkpoint.read(path, sha256=hashlib.sha256(good).hexdigest()).tensors) == len(network())


COMMANDS = [
    ("inspect {file} --expect-sha256 {good}", "", 0),
    ("inspect {file} --expect-sha256 {other}", "weights-digest-mismatch", 3),
    ("onnx {file} --expect-sha256 {other}", "weights-digest-mismatch", 3),
    ("onnx resnet20 --weights {file} --expect-sha256 {other}", "weights-digest-mismatch", 3),
    ("torch {file} --expect-sha256 {other}", "weights-digest-mismatch", 3),
    ("onnx resnet20 --weights bundled --expect-sha256 {good}", "expected-digest-without-file", 2),
    ("onnx {file} --expect-sha256 12", "expected-digest-invalid", 2),
]


@pytest.mark.parametrize(("command", "code", "exit_code"), COMMANDS)
def test_commands_compare_the_digest(tmp_path: Path, command: str, code: str, exit_code: int) -> None:
    content = saved(network())
    file, digest = written(tmp_path, content), hashlib.sha256(content).hexdigest()
    words = command.format(file=file, good=digest, other="0" * 64).split()
    outcome = CliRunner().invoke(cli.cli, [*words, *(["-o", f"{tmp_path}/out/"] if words[0] != "inspect" else [])])
    if code:
        assert isinstance(outcome.exception, RexportError)
        assert (outcome.exception.code, outcome.exception.exit_code) == (code, exit_code)
    else:
        assert outcome.exit_code == exit_code
    assert not list((tmp_path / "out").glob("*"))


def test_the_digest_is_recorded(tmp_path: Path) -> None:
    content = saved(network())
    digest = hashlib.sha256(content).hexdigest()
    from exporter.weights.sources import from_file

    loaded = from_file(str(written(tmp_path, content)), variant("resnet20"), SILENT.notice, Selection(sha256=digest))
    assert loaded.record.file_sha256 == digest
