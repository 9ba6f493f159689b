"""Makes what comes with rexport: ``python -m scripts.bundle_weights``. The same zlib gives the same bytes."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.training.corpus import DEBIAN_FOLDER, read_fashion_mnist
from benchmarks.paper.training.run import CURVE, RUN, WEIGHTS
from exporter.data.opening import BUNDLED
from exporter.weights.sources import BUNDLE, BUNDLED_FOLDER, Bundle
from runtimes import codec, files

SAMPLE_SEED = 0
SAMPLE_PER_CLASS = 100

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Date of every member: a zip file holds one, and the time of day is none of the content."""


def bundle_test(target: Path, folder: Path = DEBIAN_FOLDER) -> None:
    """Writes the test set: ``images`` (10000, 28, 28) uint8, ``targets`` (10000,) uint8 and ``classes`` (10,).

    Raises:
        ResourceError, ArtifactError: the published files are not in ``folder``, or not whole.
        ResourceError: as ``write_atomically``.
    """
    _write(target, *read_fashion_mnist("t10k", folder))


def bundle_sample(target: Path, folder: Path = DEBIAN_FOLDER) -> None:
    """Writes 1,000 images of the training set, 100 of each class, as ``bundle_test`` does; in no order.

    Raises:
        ResourceError, ArtifactError: as ``bundle_test``.
    """
    images, targets = read_fashion_mnist("train", folder)
    shuffled = np.random.default_rng(SAMPLE_SEED).permutation(len(targets))
    by_class = [np.flatnonzero(targets[shuffled] == number)[:SAMPLE_PER_CLASS] for number in np.unique(targets)]
    chosen = shuffled[np.sort(np.concatenate(by_class))]
    _write(target, images[chosen], targets[chosen])


def _write(target: Path, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> None:
    """An ``.npz`` file whose bytes follow from its arrays and zlib alone. The classes are those of the bundled weights.

    Raises:
        ResourceError: as ``write_atomically``.
    """
    arrays: dict[str, NDArray[Any]] = {
        "images": images,
        "targets": targets.astype(np.uint8),
        "classes": np.array(codec.loads(Bundle, (BUNDLED_FOLDER / BUNDLE).read_bytes()).labels),
    }
    with files.write_atomically(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            member.external_attr = 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def bundle_weights(run: Path, folder: Path = BUNDLED_FOLDER) -> Path:
    """Copies a finished training run's weights, record and curve into ``folder`` and records the weights' digest.

    Raises:
        ResourceError: the run lacks one of its files.
    """
    record = folder / BUNDLE
    known = codec.loads(Bundle, record.read_bytes())
    target = folder / known.file
    for name, path in (
        (WEIGHTS, target),
        (RUN, target.with_suffix(".recipe.json")),
        (CURVE, target.with_suffix(".log.jsonl")),
    ):
        content = files.read_bounded(run / name, 64 << 20)
        with files.write_atomically(path) as temporary:
            temporary.write_bytes(content)
    with files.write_atomically(record) as temporary:
        digest = files.sha256_of(target)
        temporary.write_text(codec.dumps(replace(known, sha256=digest), indent=2) + "\n", encoding="utf-8")
    return target


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=DEBIAN_FOLDER, show_default=True)
@click.option("--run", type=click.Path(path_type=Path), help="Folder of a finished training run, to take its weights.")
def main(data: Path, run: Path | None) -> None:
    """Make the files that come with rexport: the images, and with --run the trained weights."""
    bundle_test(BUNDLED["test"], data)
    bundle_sample(BUNDLED["train"], data)
    for path in BUNDLED.values():
        click.echo(path)
    if run is not None:
        click.echo(bundle_weights(run))


if __name__ == "__main__":
    main()
