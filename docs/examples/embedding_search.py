"""Find the images of a folder that are most like one: ``python embedding_search.py MODEL.onnx FOLDER IMAGE``.

The model needs the output features: ``rexport onnx resnet20 --weights bundled --output logits,features``. The features
of the folder are kept in ``FOLDER/features.npz`` and computed again when the model or the list of images changes.
"""

import sys
from pathlib import Path

import numpy as np

from runtimes import Classifier

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors with length 1, so that their product is their cosine."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def index(network: Classifier, folder: Path) -> tuple[list[str], np.ndarray]:
    """Return the names of a folder's images and their features, float32 (n, d)."""
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    manifest = network.runtime.artifact.manifest
    key = [manifest.sha256 if manifest else "", *(f"{path.name} {path.stat().st_mtime_ns}" for path in images)]
    cache = folder / "features.npz"
    if cache.exists():
        with np.load(cache) as kept:
            if kept["key"].tolist() == key:
                return [path.name for path in images], kept["vectors"]
    vectors = normalised(network.embed(images))
    np.savez(cache, key=key, vectors=vectors)
    return [path.name for path in images], vectors


def main(model: str, folder: str, image: str, count: int = 5) -> None:
    """Print the cosine and the name of the images that are most like one, the nearest first."""
    with Classifier.open(model) as network:
        names, vectors = index(network, Path(folder))
        cosines = vectors @ normalised(network.embed(image))[0]
    for place in np.argsort(-cosines, kind="stable")[:count]:
        print(f"{cosines[place]:.3f} {names[place]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
