"""Every writer of the program, as a row: what it writes over an older output, and when that output is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.analysis.figures import Figures
from benchmarks.commands import outputs
from benchmarks.doctor import sample_model
from benchmarks.records import findings, store
from benchmarks.tuning.artifact import copy_with_tuning
from exporter.deploy import web_runtime
from exporter.inspect.overlay import write_picture
from runtimes import Artifact, Preprocessing, files
from runtimes.artifacts.artifact import publish, vectors_name
from runtimes.artifacts.manifest import FileRecord, Tuning
from runtimes.backends.tensorrt import timing_cache
from runtimes.errors import ResourceError, RexportError
from tests.benchmarks.paper.samples import responses
from tests.benchmarks.results import FASTER, REFERENCE
from tests.runtimes.labelling.jobs import write_images
from tests.samples import publish_script


@dataclass(frozen=True)
class Outcome:
    """How a writer ended.

    Attributes:
        code: The exit code of the command.
        message: What it says of its failure.
    """

    code: int
    message: str = ""


DONE = Outcome(0)


@dataclass(frozen=True)
class Inputs:
    """What writers read: files outside of the folder that they write to.

    Attributes:
        folder: The folder of the files.
        version: ``old``, or ``new`` for the second of two outputs.
    """

    folder: Path
    version: str = "old"

    @property
    def is_new(self) -> bool:
        return self.version == "new"

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the path of an input, which ``make`` writes the first time."""
        path = self.folder / name
        if not path.exists():
            part = self.folder / "part" / name
            shutil.rmtree(part.parent, ignore_errors=True)
            part.parent.mkdir()
            make(part)
            for each in part.parent.iterdir():
                each.rename(self.folder / each.name)
        return path


@dataclass(frozen=True)
class Writer:
    """A writer.

    Attributes:
        write: Writes a version of the output into a folder, over what is there.
        check: Raises if the output in a folder is damaged. It may be missing.
        varies: The files in which two runs write different bytes, by what they hold. The documentation says why.
        libraries: The modules without which the writer cannot run here.
        is_heavy: Whether one run takes more than a tenth of a second.
    """

    write: Callable[[Inputs, Path], Outcome]
    check: Callable[[Path], object] = lambda _: None
    varies: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    is_heavy: bool = False


def _call(function: Callable[[], object]) -> Outcome:
    try:
        function()
    except RexportError as error:
        return Outcome(error.exit_code, str(error))
    except Exception as error:
        return Outcome(70, repr(error))
    return DONE


def _command(main: Callable[[], object], *words: object) -> Outcome:
    from tests.exporter.command_line import here

    done = here(main, *map(str, words))
    return Outcome(done.code, done.stderr)


def _rexport(*words: object) -> Outcome:
    from exporter.cli import main

    return _command(main, *words)


def _rbench(*words: object) -> Outcome:
    from benchmarks.cli import main

    return _command(main, *words)


def check_artifacts(folder: Path) -> None:
    """Check that each model file in the folder is the one of its manifest, with its vectors."""
    for path in folder.rglob("*"):
        if path.suffix in (".fake", ".onnx", ".pt2", ".engine") and not path.name.startswith("."):
            artifact = Artifact.read(path)
            if artifact.manifest is None:
                raise AssertionError(f"{path.name} has no manifest")
            artifact.check_digest()
            if artifact.manifest.vectors is not None:
                artifact.vectors()
            for record in artifact.manifest.external:
                artifact.sibling(record.name)


def _fake(inputs: Inputs) -> Path:
    """A scripted model to deploy."""
    return inputs.once(f"{inputs.version}.fake", lambda path: publish_script(path, seed=inputs.is_new))


def _onnx(inputs: Inputs) -> Path:
    """An ONNX file of a few nodes with a manifest, vectors and preprocessing, made without PyTorch."""

    def make(path: Path) -> None:
        source = Artifact.read(sample_model.write("onnx", path.parent, False))
        assert source.manifest is not None
        model, vectors = files.temporary_for(path), files.temporary_for(path)
        producer = f"\x12\x03{inputs.version}".encode()  # the last producer's name of a message counts
        model.write_bytes(source.path.read_bytes() + producer)
        assert source.manifest.vectors is not None
        shutil.copyfile(source.sibling(source.manifest.vectors.name), vectors)
        record = FileRecord(vectors_name(path, source.manifest.vectors.sha256), source.manifest.vectors.sha256)
        preprocessing = Preprocessing(resize=16, crop=(16, 16), pad=0, mean=(0.5,) * 3, std=(0.25,) * 3)
        manifest = replace(
            source.manifest,
            name="sample",
            sha256=files.sha256_of(model),
            size_bytes=model.stat().st_size,
            preprocessing=preprocessing,
            vectors=record,
        )
        publish(model, path, manifest, vectors)

    return inputs.once(f"{inputs.version}.onnx", make)


def _images(inputs: Inputs) -> Path:
    return inputs.once("images", lambda path: write_images(path, 4))


def _runtime(inputs: Inputs) -> Path:
    """A folder with the names of ONNX Runtime Web's files."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / web_runtime.CODE).write_text("export {};")
        (path / web_runtime.WASM).write_bytes(b"\0asm")

    return inputs.once("dist", make)


def _rows(inputs: Inputs) -> list[Figures]:
    return [REFERENCE, FASTER] if inputs.is_new else [REFERENCE]


def _append(inputs: Inputs, out: Path) -> Outcome:
    row = _rows(inputs)[-1].result
    return _call(lambda: store.ResultsFile(out / "results.jsonl").append(row, {}))


def _report(suffix: str) -> Writer:
    return Writer(lambda inputs, out: _call(lambda: outputs.write_file(out / f"all{suffix}", _rows(inputs), True)))


def _merge(inputs: Inputs, out: Path) -> Outcome:
    def make(path: Path) -> None:
        for row in _rows(inputs):
            store.ResultsFile(path).append(row.result, {})

    source = inputs.once(f"{inputs.version}.jsonl", make)
    return _rbench("merge", source, "--force", "-o", out / "merged.jsonl")


def _findings(inputs: Inputs, out: Path) -> Outcome:
    record = replace(responses(), title="new") if inputs.is_new else responses()
    return _call(lambda: findings.write(record, out))


def _plots(inputs: Inputs, out: Path) -> Outcome:
    from benchmarks.report_html.findings_plots import write_pictures

    record = replace(responses(), title="new") if inputs.is_new else responses()
    return _call(lambda: write_pictures(record, out))


def _picture(inputs: Inputs, out: Path) -> Outcome:
    picture = Image.fromarray(np.full((64, 64, 3), 9 * inputs.is_new, np.uint8))
    return _call(lambda: write_picture(out / "heat.png", picture))


def _label(inputs: Inputs, out: Path) -> Outcome:
    options = ("--workers", 1, "--threads", 1, "--shard", 2)
    return _rexport("label", _images(inputs), "--artifact", _fake(inputs), *options, "-o", out / inputs.version)


def _triton(inputs: Inputs, out: Path) -> Outcome:
    return _rexport("triton", _onnx(inputs), "--name", "net", "-o", out / "repository")


def _manifests(inputs: Inputs, out: Path) -> Outcome:
    words = ("dockerfile", _onnx(inputs), "--image", f"net:{inputs.version}", "--force", "-o", out / "Dockerfile")
    return _rexport("manifests", *words)


def _web(name: str) -> Writer:
    def write(inputs: Inputs, out: Path) -> Outcome:
        runtime = ("--onnxruntime-web", _runtime(inputs))
        return _rexport("web", _onnx(inputs), *runtime, "--force", "-o", f"{out}/{name}")

    return Writer(write, check_page)


def check_page(folder: Path) -> None:
    """Check that a page in a folder describes the model that lies beside it."""
    for page in folder.rglob("index.html"):
        description = json.loads((page.parent / "model.json").read_text())
        for file in description["files"].values():
            if files.sha256_of(page.parent / file["path"]) != file["sha256"]:
                raise AssertionError(f"{file['path']} is not the file that the page describes")


def _tuned(inputs: Inputs, out: Path) -> Outcome:
    tuning = Tuning("onnxruntime", "cpu", 1, 1 + inputs.is_new, "latency", 0.001, 1000.0, "a machine")
    return _call(lambda: copy_with_tuning(Artifact.read(_onnx(inputs)), out / "tuned.onnx", tuning))


def _timing_cache(inputs: Inputs, out: Path) -> Outcome:
    cache = SimpleNamespace(serialize=lambda: inputs.version.encode(), combine=lambda *_: True)
    config = SimpleNamespace(get_timing_cache=lambda: cache, create_timing_cache=lambda _: cache)
    return _call(lambda: timing_cache.save(config, out / "times"))


def _curve(inputs: Inputs, out: Path) -> Outcome:
    from benchmarks.paper.training import run as runs

    point = runs.CurvePoint(1 + inputs.is_new, 1.0, 0.1, 2.3, 0.9, None, 0.9, 1.0)
    return _call(lambda: runs.write_curve(out, [point]))


def _resnet20(inputs: Inputs, out: Path, *options: object) -> Outcome:
    words = ("onnx", "resnet20", "--seed", 1 + inputs.is_new, "--weights", "random", *options, "--force")
    return _rexport(*words, "-o", out / "net.onnx")


def _int8(inputs: Inputs, out: Path) -> Outcome:
    size = ("--calibration-images", 16 + inputs.is_new)
    return _rexport(
        "onnx", "resnet20", "--weights", "random", "--precision", "int8", *size, "--force", "-o", out / "net.onnx"
    )


def _beside(inputs: Inputs, out: Path) -> Outcome:
    """An export whose weights lie in another file, as beyond two gigabytes."""
    from exporter.targets import onnx_file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "ONE_FILE_BYTES", 1024)
        return _resnet20(inputs, out)


def _pt2(inputs: Inputs, out: Path) -> Outcome:
    return _rexport(
        "torch", "resnet20", "--seed", 1 + inputs.is_new, "--weights", "random", "--force", "-o", out / "net.pt2"
    )


def _engine(inputs: Inputs, out: Path) -> Outcome:
    def make(path: Path) -> None:
        path.mkdir()
        _resnet20(inputs, path)

    source = inputs.once(f"{inputs.version}-source", make) / "net.onnx"
    return _rexport("tensorrt", source, "--flavor", "rtx", "--force", "-o", out / "net.engine")


def _training(inputs: Inputs, out: Path) -> Outcome:
    schedule = ("--data", "fashion-mnist-sample", "--limit", 160, "--scale", "0.00007", "--threads", 1)
    return _rbench("paper", "train", "resnet20", *schedule, "-o", out / f"run-{inputs.version}")


def _check_runs(folder: Path) -> None:
    """Check that what a run has written so far can be read."""
    from benchmarks.paper.training import run

    readers = {run.RUN: run.open_run, run.CURVE: run.curve}
    for name, read in readers.items():
        for path in folder.rglob(name):
            read(path.parent)
    for path in folder.rglob(run.CHECKPOINT):
        run.read_checkpoint(path)


TIMES = tuple(f"run-{version}/{name}" for version in ("old", "new") for name in ("run.json", "curve.jsonl"))
"""The files of a training that hold times, and grow while it runs."""

WRITERS: dict[str, Writer] = {
    "sample": Writer(lambda _, out: _call(lambda: sample_model.write("onnx", out, False)), check_artifacts),
    "results": Writer(_append, lambda folder: [store.read(path) for path in folder.glob("*.jsonl")]),
    "report md": _report(".md"),
    "report csv": _report(".csv"),
    "report html": _report(".html"),
    "merge": Writer(_merge),
    "findings": Writer(_findings),
    "plots": Writer(_plots, libraries=("matplotlib",)),
    "picture": Writer(_picture),
    "label": Writer(_label, varies=("old/_job.json",), libraries=("pyarrow",)),
    "triton": Writer(_triton, check_artifacts, libraries=("tritonclient",)),
    "manifests": Writer(_manifests),
    "page": _web("page.html"),
    "site": _web("site/"),
    "tuned": Writer(_tuned, check_artifacts),
    "timing cache": Writer(_timing_cache),
    "curve": Writer(_curve, is_heavy=True),
    "onnx": Writer(_resnet20, check_artifacts, is_heavy=True),
    "int8": Writer(_int8, check_artifacts, is_heavy=True),
    "external weights": Writer(_beside, check_artifacts, is_heavy=True),
    "pt2": Writer(_pt2, check_artifacts, is_heavy=True),
    "engine": Writer(
        _engine, check_artifacts, varies=("net.engine", "net.engine.json"), libraries=("tensorrt_rtx",), is_heavy=True
    ),
    "training": Writer(_training, _check_runs, varies=TIMES, is_heavy=True),
}
"""All writers. Those that are not heavy need no PyTorch."""


def _write_carelessly(inputs: Inputs, out: Path) -> Outcome:
    """A writer that does all that ours must not."""

    def write() -> None:
        half = out / ".half"
        half.write_text(inputs.version)
        try:
            (out / "net").write_text(f"{inputs.version} output")
        except OSError as error:
            raise ResourceError("the disk is full", code="stated") from error
        half.unlink()

    return _call(write)


CARELESS = Writer(_write_carelessly)
"""What the walk has to find."""
