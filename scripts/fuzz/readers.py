"""The table of readers. ``tests/test_readers.py`` finds a module that parses files and is in no row."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from runtimes.errors import UsageError
from scripts.fuzz import samples
from scripts.fuzz.mutations import JSON, PROTOBUF, SAFETENSORS, TAR, ZIP
from scripts.fuzz.reader import Reader


def place_manifest(folder: Path, name: str, content: bytes) -> Path:
    """Write a manifest beside its model file, and return the path of the model file."""
    (folder / name).write_bytes(content)
    model = folder / name.removesuffix(".json")
    model.write_bytes(samples.SCRIPT)
    return model


def read_manifest(path: Path) -> object:
    """Read an artifact, describe it and open it."""
    import runtimes
    from exporter.inspect import manifest_view
    from runtimes import Artifact

    artifact = Artifact.read(path)
    manifest_view.as_text(path)
    manifest_view.as_json(path)
    with runtimes.open(path, backend="fake"):
        return artifact


def place_vectors(folder: Path, name: str, content: bytes) -> Path:
    """Write test vectors with a model file whose manifest has their digest, and return the path of the model file."""
    (folder / name).write_bytes(content)
    manifest = json.loads(samples.manifest())
    manifest["vectors"] = {"name": name, "sha256": hashlib.sha256(content).hexdigest()}
    return place_manifest(folder, "net.fake.json", json.dumps(manifest).encode())


def read_vectors(path: Path) -> object:
    """Read the test vectors of an artifact."""
    from runtimes import Artifact

    return Artifact.read(path).vectors()


def read_onnx(path: Path) -> object:
    """Read an ONNX file without a manifest: its structure, its graph and its description."""
    from exporter.inspect import manifest_view
    from runtimes import Artifact
    from runtimes.artifacts.embedded import read_embedded
    from runtimes.onnx import graph

    artifact = Artifact.read(path)
    read_embedded(artifact)
    manifest_view.as_text(path)
    found = graph.graph(path)
    return found.arithmetic, [found.find_fused(node) for node in found.nodes]


def read_checkpoint(path: Path) -> object:
    """Read weights, and recognise their layout and network."""
    from exporter.inspect import checkpoint_view
    from exporter.weights.entries import ANY_ENTRY

    facts = checkpoint_view.inspect(path, ANY_ENTRY)
    return checkpoint_view.as_text(facts), checkpoint_view.as_json(facts)


def read_results(path: Path) -> object:
    """Read results, and make all figures and tables of them."""
    from benchmarks.analysis.figures import Figures
    from benchmarks.records import store
    from benchmarks.report import csv_export
    from benchmarks.report.document import load_document, run_document
    from exporter.document.terminal import as_text

    figures = Figures.of_all(store.read(path))
    loads = [figure for figure in figures if figure.result.load is not None]
    runs = [figure for figure in figures if figure.result.load is None]
    return csv_export.csv_text(figures), as_text(run_document(runs)), as_text(load_document(loads))


def read_findings(path: Path) -> object:
    """Read the findings of an experiment, and make their document."""
    from benchmarks.records import findings
    from benchmarks.report.findings import findings_document

    return findings_document(findings.read(path))


def read_curve(path: Path) -> object:
    """Read the curve of a training."""
    from benchmarks.paper.training import run

    return run.curve(path.parent)


def read_training(path: Path) -> object:
    """Read the checkpoint of a training."""
    from benchmarks.paper.training import run

    return run.read_checkpoint(path)


def read_predictions(path: Path) -> object:
    """Read the predictions that a worker wrote."""
    from benchmarks.accuracy import predictions

    return predictions.load(path)


def read_archive(path: Path) -> object:
    """Read a dataset from a tar archive or a file of CIFAR-10."""
    from exporter.data.opening import open_dataset

    return open_dataset(str(path))


def place_inside(folder: Path, name: str, content: bytes) -> Path:
    """Write a file, and return its folder."""
    (folder / name).write_bytes(content)
    return folder


def read_source(path: Path) -> object:
    """List the images of a source of ``rexport label``, and read them."""
    from runtimes.errors import InputError, ResourceError
    from runtimes.labelling.sources.opening import recognise_source

    source = recognise_source(str(path)).open()
    try:
        images = list(source.images())
        for image, content in zip(images[:20], source.contents(images[:20]), strict=True):
            try:
                source.read(image, content)
            except (InputError, ResourceError):
                continue  # one image of many: its row says so
        return source.seal()
    finally:
        source.close()


def read_part(path: Path) -> object:
    """Read the counts of a part that ``rexport label`` wrote."""
    from runtimes.labelling import parts
    from runtimes.labelling.stores import LocalStore

    with LocalStore(path.parent).open(path.name) as file:
        return parts.read_counts(file, str(path), "ab" * 32)


def read_job(path: Path) -> object:
    """Read the job of an output folder of ``rexport label``."""
    from runtimes.labelling import output
    from runtimes.labelling.stores import LocalStore

    return output.read_job(LocalStore(path.parent))


def read_image(path: Path) -> object:
    """Decode an image, and fit it to a network."""
    from runtimes.images import preprocessing

    return preprocessing.fit_image(path, samples.PREPROCESSING), preprocessing.decode(path, channels=1)


def read_labels(path: Path) -> object:
    """Read a file of labels."""
    from exporter.data.labels_file import read_labels

    return read_labels(path, None, lambda _: None)


def read_transform(path: Path) -> object:
    """Read a file with a preprocessing."""
    from exporter.preprocessing.transform_file import read_transform

    return read_transform(path)


def read_triton(path: Path) -> object:
    """Read the configuration of a model for Triton."""
    from exporter.deploy import triton_config

    return triton_config.read_config(path)


def read_web_runtime(path: Path) -> object:
    """Read an archive of ONNX Runtime for the browser."""
    from exporter.deploy import web_runtime

    return web_runtime._read_archive(path)


READERS: dict[str, Reader] = {
    row.name: row
    for row in (
        Reader(
            "manifest",
            ("runtimes.artifacts.artifact", "runtimes.codec", "runtimes.backends.fake"),
            samples.manifests, read_manifest, JSON, "net.fake.json", place_manifest,
        ),
        Reader(
            "vectors", ("runtimes.artifacts.artifact",), samples.vectors, read_vectors, ZIP, "net.fake.npz",
            place_vectors,
        ),
        Reader(
            "onnx", ("runtimes.onnx.graph", "runtimes.onnx.wire", "runtimes.artifacts.embedded"),
            samples.onnx_files, read_onnx, PROTOBUF, "net.onnx",
        ),
        Reader(
            "checkpoint", ("exporter.weights.checkpoint", "exporter.weights.torch_zip", "exporter.weights.pickle_scan"),
            samples.checkpoints, read_checkpoint, (*ZIP, *SAFETENSORS), "weights.pth",
        ),
        Reader(
            "safetensors", ("exporter.weights.safetensors_header",), samples.safetensors_files, read_checkpoint,
            SAFETENSORS, "weights.safetensors",
        ),
        Reader(
            "results", ("benchmarks.records.store", "benchmarks.records.migration", "benchmarks.accuracy.packing"),
            samples.results, read_results, JSON, "results.jsonl", part="result of ",
        ),
        Reader(
            "findings", ("benchmarks.records.findings",), samples.findings, read_findings, JSON, "a.findings.json"
        ),
        Reader("curve", ("benchmarks.paper.training.run",), samples.curves, read_curve, JSON, "curve.jsonl"),
        Reader(
            "training", ("benchmarks.paper.training.run",), samples.training_checkpoints, read_training, SAFETENSORS,
            "checkpoint.safetensors",
        ),
        Reader(
            "predictions", ("benchmarks.accuracy.predictions",), samples.predictions, read_predictions, ZIP,
            "predictions.npz",
        ),
        Reader("archive", ("exporter.data.archives",), samples.archives, read_archive, TAR, "images.tar"),
        Reader("cifar", ("exporter.data.cifar",), samples.cifar_files, read_archive, file="test_batch.bin",
               place=place_inside),
        Reader(
            "label-tar", ("runtimes.labelling.sources.tar",), samples.plain_archives, read_source, TAR, "images.tar",
            errors=(*Reader.errors, UsageError),
        ),
        Reader("label-list", ("runtimes.labelling.sources.uris",), samples.lists, read_source, file="images.txt",
               errors=(*Reader.errors, UsageError)),
        Reader("label-table", ("runtimes.labelling.sources.table",), samples.tables, read_source, file="images.parquet",
               errors=(*Reader.errors, UsageError)),
        Reader("label-part", ("runtimes.labelling.parts",), samples.parts, read_part, file="part-000000.parquet"),
        Reader("label-job", ("runtimes.labelling.output",), samples.jobs, read_job, JSON, "_job.json"),
        Reader("image", ("runtimes.images.preprocessing",), samples.images, read_image, file="image.jpg"),
        Reader("labels", ("exporter.data.labels_file",), samples.labels, read_labels, file="labels.txt"),
        Reader("transform", ("exporter.preprocessing.transform_file",), samples.transforms, read_transform, JSON,
               "config.json", errors=(*Reader.errors, UsageError)),
        Reader("triton", ("exporter.deploy.triton_config",), samples.triton_configs, read_triton, file="config.pbtxt",
               place=place_inside),
        Reader("web-runtime", ("exporter.deploy.web_runtime",), samples.web_runtimes, read_web_runtime, TAR,
               "ort.tgz"),
    )
}  # fmt: skip
"""The readers by name."""
