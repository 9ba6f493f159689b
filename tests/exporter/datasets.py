"""Data sets to test with: tiny images of one grey each, in folders and in tar archives."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import PIL.Image

from exporter.data.dataset import Dataset
from runtimes.images.preprocessing import Preprocessing

PLAIN = Preprocessing(None, (4, 4), 0, (0.0,) * 3, (1.0,) * 3)


def png(value: int) -> bytes:
    """4 x 4 pixels of that grey."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def folder_of(root: Path, contents: dict[str, bytes]) -> Path:
    """``root`` with files of these contents by their names in it."""
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def tar_of(path: Path, contents: dict[str, bytes], mode: str = "w", **about: Any) -> Path:
    """A tar archive of these members, which are ``about``."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in about.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return path


def values(dataset: Dataset) -> list[int]:
    """The grey of every image, which tells which one it is."""
    return [round(float(x) * 255) for _, batch in dataset.batches(PLAIN, 2) for x in batch[:, 0, 0, 0]]
