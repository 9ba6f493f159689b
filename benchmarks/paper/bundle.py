"""Makes what comes with rexport: ``python -m benchmarks.paper.bundle``. The same zlib gives the same bytes."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.paper import fashion
from exporter.weights import BUNDLE, Bundle
from runtimes import files, schema

BUNDLED = Path(__file__).resolve().parents[2] / "exporter" / "bundled" / "fashion-mnist-test.npz"

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""In the order of the published targets (Xiao, Rasul, Vollgraf 2017, Table 1)."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Date of every member: a zip file holds one, and the time of day is none of the content."""


def bundle(target: Path, folder: Path = fashion.DEBIAN_FOLDER) -> None:
    """Writes ``images`` (10000, 28, 28) uint8, ``targets`` (10000,) uint8 and ``classes`` (10,) as an ``.npz`` file.

    Raises:
        ResourceError, ArtifactError: the published files are not in ``folder``, or not whole.
        ResourceError: as ``write_atomically``.
    """
    images, targets = fashion.read("t10k", folder)
    arrays: dict[str, NDArray[Any]] = {
        "images": images,
        "targets": targets.astype(np.uint8),
        "classes": np.array(CLASSES),
    }
    with files.write_atomically(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            member.external_attr = 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def bundle_weights(run: Path, folder: Path = BUNDLED.parent) -> Path:
    """Copies a finished training run's weights, recipe and log into ``folder`` and records the weights' digest.

    Raises:
        ResourceError: the run lacks one of its files.
    """
    record = folder / BUNDLE
    known = schema.loads(Bundle, record.read_bytes())
    target = folder / known.file
    for name, place in (
        ("weights.safetensors", target),
        ("recipe.json", target.with_suffix(".recipe.json")),
        ("log.jsonl", target.with_suffix(".log.jsonl")),
    ):
        content = files.read_bounded(run / name, 64 << 20)
        with files.write_atomically(place) as temporary:
            temporary.write_bytes(content)
    with files.write_atomically(record) as temporary:
        digest = files.sha256_of(target)
        temporary.write_text(schema.dumps(replace(known, sha256=digest), indent=2) + "\n", encoding="utf-8")
    return target


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=fashion.DEBIAN_FOLDER, show_default=True)
@click.option("--run", type=click.Path(path_type=Path), help="Folder of a finished training run, to take its weights.")
def main(data: Path, run: Path | None) -> None:
    """Make the files that come with rexport: the test images, and with --run the trained weights."""
    bundle(BUNDLED, data)
    click.echo(BUNDLED)
    if run is not None:
        click.echo(bundle_weights(run))


if __name__ == "__main__":
    main()
