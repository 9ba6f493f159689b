"""A repository is whole at any moment: second runs, other artifacts, interruptions, and folders of others."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporter.deploy import triton_config
from exporter.deploy.triton_repository import TritonRequest, WrittenVersion, add_version, container_command
from exporter.deploy.triton_settings import TritonSettings
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from runtimes import Artifact, Classifier, files
from runtimes.artifacts.artifact import manifest_path
from runtimes.errors import ArtifactError, IntegrityError, ModelMismatchError, Reason, ResourceError, UsageError
from tests.conftest import SILENT
from tests.exporter.command_line import REPO, environment
from tests.exporter.deploy.changes import change, make_another
from tests.refusals import refuses

NOTICES: list[Reason] = []


@pytest.fixture
def artifact(onnx_artifact: Artifact, tmp_path: Path) -> Path:
    """An artifact with labels that the test may spoil."""
    shutil.copytree(onnx_artifact.path.parent, tmp_path / "models")
    path = tmp_path / "models" / onnx_artifact.path.name
    change(path, labels=tuple(f"class\n{number}" for number in range(10)))
    return path


def add(artifact: Path, tmp_path: Path, settings: TritonSettings | None = None, **fields: object) -> WrittenVersion:
    NOTICES.clear()
    request = TritonRequest(tmp_path / "repository", settings or TritonSettings(), **fields)  # type: ignore[arg-type]
    return add_version(artifact, request, NOTICES.append)


def codes() -> list[str]:
    return [notice.code for notice in NOTICES]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_version_is_an_artifact_with_what_triton_reads(artifact: Path, tmp_path: Path) -> None:
    version = add(artifact, tmp_path, TritonSettings("python"))
    model = tmp_path / "repository" / "resnet20"
    assert (version.path, version.version, version.existed) == (model / "1", 1, False)
    assert (model / "labels.txt").read_text().splitlines() == [rf"class\n{number}" for number in range(10)]
    assert (model / "1" / "model.py").read_bytes() == (REPO / "exporter/deploy/triton_model.py").read_bytes()
    copied = Artifact.read(model / "1" / "model.onnx")
    copied.check_digest()
    first = copied.vectors().inputs[:1]
    assert (model / "warmup" / "input.bin").read_bytes() == first.tobytes()
    image = (model / "warmup" / "image.bin").read_bytes()
    assert int.from_bytes(image[:4], "little") == len(image) - 4
    with Classifier.open(model / "1" / "model.onnx", "onnxruntime", threads=1) as classifier:
        assert len(classifier.predict(image[4:])) == 1
    assert os.listdir(tmp_path / "repository") == ["resnet20"]


def test_one_output_with_two_labels_has_no_file_of_labels(tmp_path: Path) -> None:
    row = dataclasses.replace(variant("resnet20"), classes=1)
    request = ExportRequest(row, f"{tmp_path}/resnet20.onnx", labels=("cat", "dog"))
    artifact = onnx_file.export(request, SILENT).path
    model = add(artifact, tmp_path).path.parent
    assert not (model / "labels.txt").exists()
    assert not triton_config.read_config(model).output[0].label_filename
    make_another(artifact)
    assert add(artifact, tmp_path).version == 2
    assert "triton-settings-changed" not in codes()
    assert not (model / "labels.txt").exists()


def test_a_second_run_adds_nothing(artifact: Path, tmp_path: Path) -> None:
    add(artifact, tmp_path)
    before = content(tmp_path / "repository")
    assert add(artifact, tmp_path).existed
    assert (codes(), content(tmp_path / "repository")) == (["triton-version-exists"], before)
    assert add(artifact, tmp_path, TritonSettings(queue=7)).existed
    assert codes() == ["triton-settings-changed", "triton-version-exists"]
    assert (
        triton_config.read_config(tmp_path / "repository/resnet20").dynamic_batching.default_queue_policy.max_queue_size
        == 7
    )


def test_the_next_version_leaves_the_old_one_alone(artifact: Path, tmp_path: Path) -> None:
    old = add(artifact, tmp_path)
    before = content(old.path)
    make_another(artifact)
    new = add(artifact, tmp_path)
    assert (new.version, new.existed, codes(), content(old.path)) == (2, False, [], before)
    digests = triton_config.digests_of(triton_config.read_config(old.path.parent))
    assert digests == {1: old.sha256, 2: new.sha256}
    with refuses(UsageError, "triton-version-taken", 1):
        add(artifact, tmp_path, version=1)
    assert add(artifact, tmp_path, version=7).version == 7
    assert (add(artifact, tmp_path, version=3).version, codes()) == (3, ["triton-version-older"])


def test_another_interface_needs_another_name(artifact: Path, tmp_path: Path) -> None:
    add(artifact, tmp_path)
    before = content(tmp_path / "repository")
    for settings, key in ((TritonSettings("python"), "backend"), (TritonSettings("openvino"), "backend")):
        with refuses(ModelMismatchError, "triton-interface-changed", key):
            add(artifact, tmp_path, settings)
    change(artifact, labels=None)
    with refuses(ModelMismatchError, "triton-interface-changed", "labels"):
        add(artifact, tmp_path)
    assert content(tmp_path / "repository") == before
    assert add(artifact, tmp_path, name="other").model == "other"


@pytest.mark.parametrize("name", ["", ".x", "-x", "a/b", "a b", "ü", ".."])
def test_a_name_that_is_no_folder_or_address_is_refused(name: str, artifact: Path, tmp_path: Path) -> None:
    with refuses(UsageError, "triton-name-invalid"):
        add(artifact, tmp_path, name=name)
    assert not (tmp_path / "repository").exists()


def test_a_folder_of_others_is_left_alone(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "repository" / "resnet20").mkdir(parents=True)
    (tmp_path / "repository" / "resnet20" / "mine").write_text("x")
    with refuses(ArtifactError, "triton-folder-foreign"):
        add(artifact, tmp_path)
    assert content(tmp_path / "repository") == {"resnet20/mine": b"x"}


def test_a_damaged_or_bare_artifact_gives_no_version(artifact: Path, tmp_path: Path) -> None:
    good = artifact.read_bytes()
    artifact.write_bytes(good[:-100] + bytes([good[-100] ^ 1]) + good[-99:])
    with refuses(IntegrityError, "file-digest-mismatch"):
        add(artifact, tmp_path)
    assert content(tmp_path / "repository") == {}
    artifact.write_bytes(good)
    add(artifact, tmp_path)
    manifest_path(artifact).unlink()
    with refuses(ArtifactError, "triton-needs-manifest"):
        add(artifact, tmp_path)
    with refuses(ResourceError, "file-access-failed"):
        add(artifact.with_name("absent.onnx"), tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from exporter.deploy import triton_repository
from exporter.deploy.triton_repository import TritonRequest, add_version

real = triton_repository.publish
def publish(*arguments):
    artifact = real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
    return artifact
triton_repository.publish = publish
add_version(Path(sys.argv[1]), TritonRequest(Path(sys.argv[2])), print)
"""


@pytest.mark.parametrize("prepare", [lambda *_: None, add], ids=["first", "second"])
def test_a_killed_run_leaves_no_half_version(
    prepare: Callable[[Path, Path], object], artifact: Path, tmp_path: Path
) -> None:
    prepare(artifact, tmp_path)
    make_another(artifact)
    command = [sys.executable, "-c", KILLED, str(artifact), str(tmp_path / "repository")]
    assert subprocess.run(command, env=environment(), timeout=120).returncode == -9
    left = [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert len(left) == 1
    hidden = [path.name for path in (tmp_path / "repository").iterdir() if path.name.startswith(".")]
    assert hidden == [files.LOCK]  # Triton looks at folders alone
    version = add(artifact, tmp_path)
    assert version.path.name == ("1" if prepare is not add else "2")
    assert not left[0].exists()
    assert not (tmp_path / "repository" / files.LOCK).exists()
    Artifact.read(version.path / "model.onnx").check_digest()


def test_the_container_gets_what_model_py_imports(artifact: Path, tmp_path: Path) -> None:
    settings = TritonSettings("python", opened_with="openvino")
    version = add(artifact, tmp_path, settings)
    command = container_command(TritonRequest(tmp_path / "a b", settings), [version])
    assert "'rexport[openvino,images]'" in command
    assert f"'{tmp_path}/a b:/models:ro'" in command
    plain = container_command(TritonRequest(tmp_path), [dataclasses.replace(version, backend="onnxruntime")])
    assert "pip" not in plain
    assert "--gpus" not in plain
    assert "--gpus=all" in container_command(
        TritonRequest(tmp_path), [dataclasses.replace(version, backend="tensorrt")]
    )
    assert np.all(["127.0.0.1" in part for part in command.split("-p ")[1:4]])
