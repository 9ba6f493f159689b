"""The errors by which Python's reader of tar archives refuses an archive."""

from __future__ import annotations

import lzma
import tarfile
import zlib

TAR_ERRORS = (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, ValueError, OverflowError, RecursionError)
"""The errors of ``tarfile`` and its decompressors on damaged archives.

It calls itself for each header that describes the next one, so that a chain of a thousand headers ends in
``RecursionError``. ``OSError`` is left out: with an error number it is an error of the disk.
"""
