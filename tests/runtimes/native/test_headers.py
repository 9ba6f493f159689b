"""The C++ headers against the Python package: the same pixels, the same floats, and the same files refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runtimes.artifacts.manifest import FORMAT_VERSION
from runtimes.images.preprocessing import fit_image, normalise
from runtimes.images.spec import INTERPOLATIONS, SAMPLED, Interpolation, Preprocessing
from runtimes.native import include_folder
from scripts.consumers.compilers import compile_program
from tests.activations import CASES
from tests.compilers import require_compiler

FIXTURES = Path(__file__).parents[2] / "fixtures"

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_compiler()
    return compile_program(FIXTURES / "native_probe.cpp", tmp_path_factory.mktemp("probe") / "probe")


HOW = Preprocessing(36, (32, 32), 0, *IMAGENET)

MODEL = b"a model that nothing here runs"

FIELDS = {
    "format_version": FORMAT_VERSION,
    "name": "model",
    "format": "onnx",
    "sha256": hashlib.sha256(MODEL).hexdigest(),
    "size_bytes": len(MODEL),
    "precision": "fp32",
    "inputs": [{"name": "input", "dtype": "float32", "shape": ["batch", 3, 32, 32]}],
    "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}],
    "labels": None,
}


def publish(folder: Path, how: Preprocessing, **changes: object) -> Path:
    """Write a model, and its manifest with some fields changed."""
    model = folder / "model.onnx"
    model.write_bytes(MODEL)
    fields = {**FIELDS, "preprocessing": asdict(how), **changes}
    Path(f"{model}.json").write_text(json.dumps(fields), encoding="utf-8")
    return model


def probe(
    program: Path, model: Path, image: str, preprocessing: Preprocessing
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    target = model.with_name("output")
    done = subprocess.run([str(program), str(model), image, str(target)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shape = (*preprocessing.size, preprocessing.channels)
    content = target.read_bytes()
    count = int(np.prod(shape))
    pixels = np.frombuffer(content[:count], np.uint8).reshape(shape)
    return pixels, np.frombuffer(content[count:], np.float32).reshape(shape[2], *shape[:2])


def check(program: Path, folder: Path, pixels: NDArray[np.uint8], how: Preprocessing) -> None:
    """The probe's pixels and floats equal those of Python, bit for bit."""
    raw = folder / "pixels"
    pixels.tofile(raw)
    model = publish(folder, how)
    fitted, floats = probe(program, model, f"{'x'.join(map(str, pixels.shape))}:{raw}", how)
    expected = fit_image(pixels, how)
    np.testing.assert_array_equal(fitted, expected)
    np.testing.assert_array_equal(floats, normalise(expected[None], how)[0])


def noise(*shape: int) -> NDArray[np.uint8]:
    """Pixels whose overshoot is clipped by filters with negative weights."""
    return np.random.default_rng(len(shape)).choice(np.array([0, 1, 127, 254, 255], np.uint8), shape)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(97, 61, 3), (23, 40, 3), (50, 32, 1)], ids=["shrinks", "grows", "grey"])
def test_antialiased_filters_equal_pillow(
    program: Path, tmp_path: Path, interpolation: Interpolation, size: tuple[int, int, int]
) -> None:
    mean, std = (values[: size[2]] for values in IMAGENET)
    how = Preprocessing(37, (32, 30), 1, mean, std, interpolation)
    check(program, tmp_path, noise(*size), how)


@pytest.mark.parametrize("interpolation", SAMPLED)
@pytest.mark.parametrize("size", [(97, 61, 3), (23, 40, 3)], ids=["shrinks", "grows"])
def test_sampled_filters_equal_python(
    program: Path, tmp_path: Path, interpolation: Interpolation, size: tuple[int, int, int]
) -> None:
    how = Preprocessing((33, 45), (32, 32), 0, *IMAGENET, interpolation, antialias=False)
    check(program, tmp_path, noise(*size), how)


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(None, (41, 37), 0, *IMAGENET),
        Preprocessing(31, (20, 20), 3, *IMAGENET, channel_order="BGR", scale=1),
        Preprocessing(35, (32, 32), 0, *IMAGENET, crop_offset="floor"),
        Preprocessing(35, (32, 32), 0, *IMAGENET),
    ],
    ids=["larger", "BGR", "floor", "round"],
)
def test_crops_and_channels_equal_python(program: Path, tmp_path: Path, how: Preprocessing) -> None:
    check(program, tmp_path, noise(40, 36, 3), how)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_upright_jpeg_equals_python(program: Path, tmp_path: Path, orientation: int) -> None:
    path, exif = tmp_path / "image.jpg", Image.Exif()
    exif[0x0112] = orientation
    rows, columns = np.mgrid[0:40, 0:64]
    smooth = np.stack([rows * 6, columns * 4, (rows + columns) * 2], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(path, exif=exif, quality=90)
    how = Preprocessing(36, (32, 32), 0, *IMAGENET)
    pixels, _ = probe(program, publish(tmp_path, how), str(path), how)
    np.testing.assert_array_equal(pixels, fit_image(str(path), how))


@pytest.mark.parametrize("name", CASES)
def test_probabilities_equal_those_of_python(program: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    outputs = [{"name": "logits", "dtype": "float32", "shape": ["batch", len(case.values)]}]
    model = publish(tmp_path, HOW, activation=case.activation, labels=case.labels, outputs=outputs)
    command = [str(program), str(model), "--outputs", *map(repr, case.values)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [float(line) for line in done.stdout.split()] == pytest.approx(case.expected, abs=1e-12)


def refusal(program: Path, model: Path, image: Path) -> str:
    done = subprocess.run([str(program), str(model), str(image), "/dev/null"], capture_output=True, text=True)
    assert done.returncode == 1, done
    return done.stderr


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"size_bytes": 1}, "bytes"),
        ({"preprocessing": {}}, "manifest"),
        ({"preprocessing": asdict(HOW) | {"std": (1, 1)}}, "mean and std"),
        ({"preprocessing": asdict(HOW) | {"scaled_decoding": True}}, "--scaled-decoding"),
        ({"outputs": [{"name": "features"}]}, "logits"),
        ({"inputs": []}, "manifest"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_manifest_is_refused(program: Path, tmp_path: Path, changes: dict[str, object], word: str) -> None:
    image = tmp_path / "image.jpg"
    Image.new("RGB", (40, 40)).save(image)
    assert word in refusal(program, publish(tmp_path, HOW, **changes), image)


def test_a_missing_manifest_is_refused(program: Path, tmp_path: Path) -> None:
    assert "model.onnx.json" in refusal(program, tmp_path / "model.onnx", tmp_path / "image.jpg")


@pytest.mark.parametrize("kind", ["empty", "truncated", "png", "cmyk", "absent"])
def test_a_broken_image_is_refused(program: Path, tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image.jpg"
    if kind != "absent":
        Image.new("CMYK" if kind == "cmyk" else "RGB", (400, 400), 1).save(
            image, format="PNG" if kind == "png" else "JPEG"
        )
        content = image.read_bytes()
        image.write_bytes({"empty": b"", "truncated": content[:-200]}.get(kind, content))
    assert "image.jpg" in refusal(program, publish(tmp_path, HOW), image)


def test_the_module_prints_the_folder() -> None:
    done = subprocess.run([sys.executable, "-m", "runtimes.native"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{include_folder()}\n"
    assert (include_folder() / "rexport" / "classifier.hpp").exists()
