"""Good files for each reader, made at run time or taken from the repository's own fixtures, small enough to mutate."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runtimes.images.spec import Preprocessing

REPOSITORY = Path(__file__).resolve().parents[2]

FIXTURES = REPOSITORY / "tests" / "fixtures" / "version-0.1"
"""Files that version 0.1 wrote."""

PREPROCESSING = Preprocessing(resize=8, crop=(8, 8), pad=0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

SCRIPT = b'{"fake": 1, "inputs": [{"name": "input", "dtype": "float32", "shape": ["batch", 3, 8, 8]}], '
SCRIPT += b'"outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}]}'
"""The model file of a scripted artifact."""

KEPT = 6
"""The number of values of a long list that stay in a sample of JSON."""


def manifest() -> bytes:
    """Return the manifest of a scripted artifact."""
    from runtimes.codec import encode

    data = json.loads((FIXTURES / "artifacts" / "small-basic.onnx.json").read_bytes())
    tensors: dict[str, Any] = {
        "inputs": [{"name": "input", "dtype": "float32", "shape": ["batch", 3, 8, 8]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
    }
    more = {
        "sha256": hashlib.sha256(SCRIPT).hexdigest(),
        "size_bytes": len(SCRIPT),
        "format": "fake",
        "preprocessing": encode(PREPROCESSING),
        "vectors": None,
        "labels": None,
        "external": [],
    }
    return json.dumps(data | tensors | more).encode()


def manifests(_: Path) -> Iterator[bytes]:
    """Yield manifests: a plain one, and with the records of a quantised file, of tuning and of an engine."""
    plain = json.loads(manifest())
    yield json.dumps(plain, indent=1).encode()
    for name in ("small-basic.int8.onnx.json", "tuned.onnx.json", "small-basic.engine.json"):
        other = json.loads((FIXTURES / "artifacts" / name).read_bytes())
        records = ("gate", "calibration", "tuning", "engine", "parity", "weights", "variant")
        yield json.dumps(plain | {key: other[key] for key in records if other.get(key) is not None}).encode()


def vectors(_: Path) -> Iterator[bytes]:
    """Yield test vectors, stored and compressed."""
    inputs = np.zeros((7, 3, 8, 8), np.float32)
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, inputs=inputs, logits=np.zeros((7, 10), np.float32))
        yield buffer.getvalue()


def onnx_files(_: Path) -> Iterator[bytes]:
    """Yield ONNX files in float32, float16 and int8."""
    for name in ("small-basic.onnx", "small-basic.raw.fp16.onnx", "small-basic.int8.onnx"):
        yield (FIXTURES / "artifacts" / name).read_bytes()


def checkpoints(folder: Path) -> Iterator[bytes]:
    """Yield a state dict and a training checkpoint, in both formats of ``torch.save``."""
    import torch

    path = folder / "weights.pth"
    state = _small_state()
    sizes = [tensor.numel() for tensor in state.values()]
    parts = torch.split(torch.ones(sum(sizes)), sizes)
    views = {name: part.view_as(state[name]) for name, part in zip(state, parts, strict=True)}
    for new, tensors in ((True, state), (False, views)):
        for content in (tensors, {"epoch": 3, "state_dict": tensors, "optimizer": {"param_groups": [{"lr": 0.1}]}}):
            torch.save(content, path, _use_new_zipfile_serialization=new)
            yield path.read_bytes() if new else _ADDRESS.sub(_FIXED_ADDRESS, path.read_bytes())


_ADDRESS = re.compile(rb"X[\x0a-\x14]\0\0\0\d{10,20}")
_FIXED_ADDRESS = b"X\x0e\0\0\0" + b"9" * 14
"""The older format names a storage by its address, which no two processes have in common. So there is one storage."""


def safetensors_files(_: Path) -> Iterator[bytes]:
    """Yield a state dict."""
    from safetensors.torch import save

    yield save(_small_state())


def _small_state() -> dict[str, Any]:
    """Return the beginning of a state dict of a ResNet, with tiny tensors."""
    import torch

    shapes = {
        "conv1.weight": (4, 3, 3, 3), "bn1.weight": (4,), "bn1.bias": (4,), "layer1.0.conv1.weight": (4, 4, 3, 3),
        "fc.weight": (10, 4), "fc.bias": (10,),
    }  # fmt: skip
    return {name: torch.ones(shape) for name, shape in shapes.items()} | {"bn1.num_batches_tracked": torch.tensor(7)}


def results(_: Path) -> Iterator[bytes]:
    """Yield results of the current schema and of each older one, with few samples."""
    from benchmarks.records import store
    from runtimes.codec import dumps

    for name in ("schema-1", "schema-2", "schema-3", "demo", "load", "shapes"):
        lines = lzma.decompress((FIXTURES / "results" / name / "results.jsonl.xz").read_bytes()).splitlines()
        rows = [json.dumps(_shorten(json.loads(line))).encode() for line in lines[:2]]
        yield b"\n".join(rows) + b"\n"
        if name in ("demo", "shapes"):
            yield "".join(f"{dumps(store.parse_line(row, 1, name))}\n" for row in rows).encode()


def _shorten(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shorten(item) for key, item in value.items()}
    if isinstance(value, list):
        kept = value[:KEPT] if value and all(isinstance(item, (int, float)) for item in value) else value
        return [_shorten(item) for item in kept]
    return value


def findings(_: Path) -> Iterator[bytes]:
    """Yield the findings of two experiments."""
    for name in ("degradation", "responses"):
        yield (FIXTURES / "training" / "experiment" / f"{name}.findings.json").read_bytes()


def curves(_: Path) -> Iterator[bytes]:
    """Yield a curve of a training."""
    yield (FIXTURES / "training" / "finished" / "curve.jsonl").read_bytes()


def training_checkpoints(_: Path) -> Iterator[bytes]:
    """Yield the checkpoint of an interrupted training."""
    yield (FIXTURES / "training" / "interrupted" / "checkpoint.safetensors").read_bytes()


def predictions(folder: Path) -> Iterator[bytes]:
    """Yield the predictions of a few images, with and without targets."""
    from benchmarks.accuracy.predictions import Predictions, save

    for targets in (None, np.arange(6) % 4):
        path = folder / "predictions.npz"
        order = np.tile(np.arange(4), (6, 1))
        save(Predictions(np.arange(6), targets, order[:, :1], np.ones(6, np.float32), 4), path)
        yield path.read_bytes()


def picture(format: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """Return a small encoded image."""
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13), np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def images(_: Path) -> Iterator[bytes]:
    """Yield images in all formats, and in the modes that need rules of their own."""
    from PIL import Image

    from runtimes.images.preprocessing import FORMATS

    yield from map(picture, FORMATS)
    yield from (picture("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16"))
    yield picture("TIFF", "CMYK", compression="tiff_lzw")
    yield picture("JPEG", "CMYK")
    exif = Image.Exif()
    exif[0x0112] = 6
    yield picture("JPEG", exif=exif, progressive=True)


def plain_archives(_: Path) -> Iterator[bytes]:
    """Yield tar archives with images in class folders, in the three formats of headers."""
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
            for name in ("test/cat/1.png", "test/dog/2.png", f"test/dog/{'n' * 120}.png"):
                if format == tarfile.USTAR_FORMAT and len(name) > 100:
                    continue
                member = tarfile.TarInfo(name)
                content = picture()
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        yield buffer.getvalue()


def archives(folder: Path) -> Iterator[bytes]:
    """Yield tar archives, plain and compressed."""
    yield from plain_archives(folder)
    plain = next(plain_archives(folder))
    yield gzip.compress(plain, mtime=0)
    yield lzma.compress(plain)


def cifar_files(_: Path) -> Iterator[bytes]:
    """Yield a file of CIFAR-10's binary version."""
    yield b"".join(bytes([label]) + bytes([40 * label % 256]) * 3072 for label in range(4))


def lists(_: Path) -> Iterator[bytes]:
    """Yield a list of paths and URIs."""
    yield b"cat/1.png\r\ndog/2.png\n\n/tmp/none.jpg\nfile:///tmp/none.jpg\n"


def tables(_: Path) -> Iterator[bytes]:
    """Yield Parquet files with URIs, with encoded images, and as those of Hugging Face."""
    import pyarrow
    from pyarrow import parquet

    content = [picture(), picture("JPEG")]
    columns: tuple[dict[str, list[Any]], ...] = (
        {"uri": ["a.png", "b.png"], "label": ["cat", "dog"]},
        {"bytes": content, "label": ["cat", None]},
        {"image": [{"bytes": each, "path": "x"} for each in content], "label": [0, 1]},
    )
    for table in columns:
        buffer = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table(table), buffer)
        yield buffer.getvalue().to_pybytes()


def parts(_: Path) -> Iterator[bytes]:
    """Yield a part of the labels of a job."""
    import pyarrow
    from pyarrow import parquet

    from runtimes.labelling.parts import METADATA_KEY

    facts = {"job": "ab" * 32, "images": 2, "errors": 0}
    table = pyarrow.table({"index": [1, None]}).replace_schema_metadata({METADATA_KEY: json.dumps(facts)})
    buffer = pyarrow.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd")
    yield buffer.getvalue().to_pybytes()


def jobs(_: Path) -> Iterator[bytes]:
    """Yield the job of an output folder."""
    from runtimes.codec import dumps
    from runtimes.labelling.job import LabellingJob

    job = LabellingJob("net.onnx", "ab" * 32, "/data", "/data", "folder", 10, "cd" * 32, ("ef" * 32,), 5, 2, 1, False)
    yield dumps(job, indent=1).encode()


def labels(_: Path) -> Iterator[bytes]:
    """Yield labels, with and without a byte-order mark."""
    yield b"cat\ndog\nb\xc3\xa4r\n"
    yield b"\xef\xbb\xbfcat\r\ndog\r\n"


def transforms(_: Path) -> Iterator[bytes]:
    """Yield a file of each library with a preprocessing."""
    statistics: dict[str, Any] = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    rows: Iterable[dict[str, Any]] = (
        {"resize": 256, "crop": [224, 224], "pad": 0, **statistics},
        {"pretrained_cfg": {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875, **statistics,
                            "test_input_size": [3, 224, 224]}},
        {"size": {"shortest_edge": 224}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
         "crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor"},
        {"crop_size": [224], "resize_size": [256], **statistics, "interpolation": "InterpolationMode.BILINEAR"},
    )  # fmt: skip
    yield from (json.dumps(row).encode() for row in rows)
    yield manifest()


def triton_configs(_: Path) -> Iterator[bytes]:
    """Yield the configuration of a model that rexport wrote."""
    yield (
        b'name: "net"\nbackend: "onnxruntime"\nmax_batch_size: 64\n'
        b'input { name: "input" data_type: TYPE_FP32 dims: [3, 8, 8] }\n'
        b'output { name: "logits" data_type: TYPE_FP32 dims: [10] }\n'
        b'parameters { key: "rexport.file" value { string_value: "model.onnx" } }\n'
    )


def web_runtimes(_: Path) -> Iterator[bytes]:
    """Yield an archive as ``npm pack`` writes it, plain and compressed."""
    from exporter.deploy.web_runtime import DIGESTS

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        contents = {f"package/dist/{name}": b"code" for name in DIGESTS}
        for name, content in {**contents, "package/package.json": b'{"version": "1.2.3"}'}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    yield buffer.getvalue()
    yield gzip.compress(buffer.getvalue(), mtime=0)
