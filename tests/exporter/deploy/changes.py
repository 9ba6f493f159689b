"""Changes of artifacts that a test owns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from runtimes import Artifact, codec, files
from runtimes.artifacts.artifact import manifest_path


def change(path: Path, **fields: object) -> None:
    """Replaces fields of the manifest."""
    manifest = Artifact.read(path).manifest
    assert manifest is not None
    manifest_path(path).write_text(codec.dumps(dataclasses.replace(manifest, **fields)))  # type: ignore[arg-type]


def make_another(path: Path) -> None:
    """Makes another model file of the same network: a byte is added that ONNX ignores."""
    path.write_bytes(path.read_bytes() + b"\xf2\x06\x01x")  # an unknown field
    change(path, sha256=files.sha256_of(path))
