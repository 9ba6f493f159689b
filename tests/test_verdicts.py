"""No command says that all is well where it looked at nothing: each one that judges, at an input without a thing."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cli as rbench
from exporter import cli as rexport
from runtimes import Artifact
from tests.exporter.command_line import Result, here
from tests.refusals import error_codes
from tests.samples import copied


class Nothing:
    """Inputs in which there is nothing to look at."""

    def __init__(self, folder: Path, artifact: Artifact) -> None:
        self.folder = folder
        self.artifact = copied(artifact, folder).path
        self.empty = folder / "empty"
        self.empty.mkdir()
        self.no_rows = folder / "rows.jsonl"
        self.no_rows.touch()
        self.out = folder / "out"

    def tar(self) -> Path:
        path = self.folder / "empty.tar"
        tarfile.open(path, "w").close()
        return path

    def without_images(self) -> Path:
        """The artifact with test vectors of no images."""
        place = self.artifact.with_name(self.artifact.name + ".json")
        manifest = json.loads(place.read_text())
        vectors = self.artifact.with_name(manifest["vectors"]["name"])
        with np.load(vectors) as arrays:
            buffer = io.BytesIO()
            np.savez(buffer, **{name: arrays[name][:0] for name in arrays.files})
        vectors.write_bytes(buffer.getvalue())
        manifest["vectors"]["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        place.write_text(json.dumps(manifest))
        return self.artifact

    def without_vectors(self) -> Path:
        for file in self.folder.glob("*.npz"):
            file.unlink()
        return self.artifact

    def alone(self) -> Path:
        """The model file without its manifest."""
        self.artifact.with_name(self.artifact.name + ".json").unlink()
        return self.artifact


Arguments = Callable[[Nothing], list[str | Path | float]]

LOOKED_AT_NOTHING: dict[str, tuple[Callable[[], object], Arguments, int, str]] = {
    "predict, a folder without images": (
        rexport.main, lambda at: ["predict", at.artifact, at.empty], 2, "folder-without-images"
    ),
    "label, a folder without images": (
        rexport.main, lambda at: ["label", at.empty, "-a", at.artifact, "-o", at.out], 2, "source-without-images"
    ),
    "label, an empty list": (
        rexport.main, lambda at: ["label", at.no_rows, "-a", at.artifact, "-o", at.out], 3, "source-unknown"
    ),
    "label, an empty archive": (
        rexport.main, lambda at: ["label", at.tar(), "-a", at.artifact, "-o", at.out], 3, "source-unknown"
    ),
    "verify, vectors of no images": (
        rexport.main, lambda at: ["verify", at.without_images()], 3, "vectors-unreadable"
    ),
    "verify, no vectors": (rexport.main, lambda at: ["verify", at.without_vectors()], 3, "vectors-file-missing"),
    "verify, no manifest": (rexport.main, lambda at: ["verify", at.alone()], 3, "vectors-absent"),
    "verify, a server of nothing": (
        rexport.main, lambda at: ["verify", at.empty, "--url", "http://127.0.0.1:1"], 3, "repository-empty"
    ),
    "a gate of no images": (
        rexport.main,
        lambda at: ["onnx", "resnet20", "--precision", "int8", "--gate-images", 0, "-o", at.out],
        2,
        "usage",
    ),
    "an export checked on no data": (
        rexport.main, lambda at: ["onnx", "resnet20", "--data", at.empty, "-o", at.out], 3, "dataset-empty"
    ),
    "an accuracy expected of no data": (
        rexport.main,
        lambda at: ["onnx", "resnet20", "--data", at.empty, "--expect-top1", 90, "-o", at.out],
        3,
        "dataset-empty",
    ),
    "compare of no rows": (rbench.main, lambda at: ["compare", at.no_rows, at.no_rows], 4, "nothing-to-compare"),
    "report of no rows": (rbench.main, lambda at: ["report", at.no_rows, "-o", at.out], 3, "rows-missing"),
    "merge of no rows": (rbench.main, lambda at: ["merge", at.no_rows, "-o", at.out], 3, "rows-missing"),
    "run on no images": (rbench.main, lambda at: ["run", at.artifact, "--limit", 0], 2, "usage"),
    "run on no data": (rbench.main, lambda at: ["run", at.artifact, "--data", at.empty], 3, "dataset-empty"),
    "load of no time": (rbench.main, lambda at: ["load", at.artifact, "--duration", 0], 2, "usage"),
    "load of no model": (rbench.main, lambda at: ["load", at.empty], 6, "file-not-regular"),
    "tune of no model": (rbench.main, lambda at: ["tune", at.folder / "none.onnx", "-o", at.out], 6, "model-missing"),
}  # fmt: skip
"""Each verdict with its command, exit code and error code."""

WITHOUT_VERDICT = {
    "rexport": {
        "completion", "explain", "info", "inspect", "list", "manifests", "refit", "serve", "tensorrt", "torch",
        "triton", "web",
    },
    "rbench": {"completion", "doctor", "paper"},
}  # fmt: skip
"""The commands that show or write something and judge nothing, that share the checks of ``onnx``, or whose checks need
no input: ``doctor`` fails where it cannot look."""


@pytest.mark.parametrize("verdict", LOOKED_AT_NOTHING)
def test_nothing_looked_at_is_never_ok(tmp_path: Path, onnx_artifact: Artifact, verdict: str) -> None:
    main, arguments, exit_code, code = LOOKED_AT_NOTHING[verdict]
    at = Nothing(tmp_path, onnx_artifact)
    done: Result = here(main, *arguments(at))
    assert (done.code, error_codes(done.stderr)) == (exit_code, [code]), done.stderr
    assert done.stdout == ""
    assert not at.out.exists()


@pytest.mark.parametrize(("name", "group"), [("rexport", rexport.cli), ("rbench", rbench.rbench)])
def test_each_command_is_judged_or_listed(name: str, group: object) -> None:
    commands = set(group.commands)  # type: ignore[attr-defined]
    main = rexport.main if name == "rexport" else rbench.main
    sample = _Words()
    judged = {
        str(arguments(sample)[0])  # type: ignore[arg-type]
        for own, arguments, _, _ in LOOKED_AT_NOTHING.values()
        if own is main
    }
    assert judged | WITHOUT_VERDICT[name] == commands
    assert not judged & WITHOUT_VERDICT[name]


class _Words:
    """Stands in for inputs where only the name of the command counts."""

    folder = artifact = empty = no_rows = out = Path("x")

    def __getattr__(self, _: str) -> Callable[[], Path]:
        return lambda: Path("x")


def test_a_damaged_file_of_the_user_is_exit_3(tmp_path: Path, onnx_artifact: Artifact) -> None:
    path = copied(onnx_artifact, tmp_path).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    out = tmp_path / "out"
    for arguments in (
        ["run", path, "-o", out, "--duration", 0.02],
        ["run", path, path, "-o", out, "--duration", 0.02],
        ["load", path, "-o", out, "--duration", 0.02],
        ["tune", path, "-o", out],
    ):
        done = here(rbench.main, *arguments)
        assert (done.code, error_codes(done.stderr)) == (3, ["file-digest-mismatch"]), done.stderr
        assert done.stdout == ""
