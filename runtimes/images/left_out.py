"""Files that a search for images leaves out, counted by their endings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from runtimes.errors import Reason, quote
from runtimes.images.preprocessing import SUFFIXES

UNREAD_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in [
        *("heic", "heif", "hif", "jxl", "jxr", "svg", "psd", "tga", "ico", "exr", "hdr"),
        *("raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "dcm", "nii", "npy", "npz"),
    ]
)
"""The suffixes of image files that rexport does not read, in lower case."""

MAX_ENDINGS = 8
"""The largest number of endings in a message."""


class LeftOutFiles:
    """Counts files that are no images by their endings.

    Hidden files are not counted.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._endings: Counter[str] = Counter()
        self._images = 0
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Count a file that was found, an image or not.

        Args:
            name: The name or the path of the file.
        """
        path = PurePosixPath(name)
        if path.name.startswith("."):
            return
        ending = path.suffix.lower()
        if ending in SUFFIXES:
            self._images += 1
        else:
            self._endings[ending] += 1

    def endings(self) -> dict[str, int]:
        """Return the number of files by ending, the largest first. Files without an ending count under ``""``."""
        return dict(sorted(self._endings.items(), key=lambda item: (-item[1], item[0])))

    def counts(self) -> str:
        """Return the counts as text, for example ``10 .heic, 2 .txt``."""
        parts = [f"{number:,} {quote(ending) or 'without ending'}" for ending, number in self.endings().items()]
        return ", ".join(parts[:MAX_ENDINGS]) + (", ..." if len(parts) > MAX_ENDINGS else "")

    def notice(self, place: object) -> Reason | None:
        """Return the notice about the files that were left out, or ``None`` if there are none.

        Args:
            place: The folder or archive.
        """
        left_out = sum(self._endings.values())
        if not left_out:
            return None
        total = left_out + self._images
        convert = "; convert them, for example to .jpg" if UNREAD_SUFFIXES & set(self._endings) else ""
        return Reason(
            "files-left-out",
            f"{quote(place)}: left out {left_out:,} of {total:,} files, whose endings are not those of images that "
            f"rexport reads: {self.counts()}{convert}",
        )
