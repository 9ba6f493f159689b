"""The contents of encoded images that are in memory or in open files, as web frameworks hand them over."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, TypeAlias

from runtimes.errors import InputError, ResourceError, RexportError, quote

if TYPE_CHECKING:
    from typing_extensions import TypeIs

ImageContent: TypeAlias = "bytes | bytearray | memoryview | IO[bytes]"
"""An image file: its content, or the file opened in binary mode."""


def is_open_file(image: object) -> TypeIs[IO[bytes]]:
    """Return whether an object is an open file: it has a method ``read``."""
    return callable(getattr(image, "read", None))


def is_content(image: object) -> TypeIs[ImageContent]:
    """Return whether an object is an image file in memory or an open file."""
    return isinstance(image, (bytes, bytearray, memoryview)) or is_open_file(image)


def read_content(image: ImageContent, limit_bytes: int) -> bytes:
    """Return the content of an image file in memory or of an open file.

    An open file is read from its beginning, wherever it stands, and stands where it stood afterwards. A file that
    cannot seek, such as a pipe, is read from where it stands. The file is never closed.

    Args:
        image: The image file.
        limit_bytes: The largest size of an open file.

    Raises:
        InputError: The file is closed, is open in text mode, or can only be read asynchronously.
        ResourceError: The file is too large, or reading fails.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, (bytearray, memoryview)):
        return bytes(image)
    try:
        position = _rewind(image)
        try:
            content = _read(image, limit_bytes)
        finally:
            if position is not None:
                image.seek(position)
    except RexportError:
        raise
    except ValueError as error:  # also io.UnsupportedOperation
        raise InputError(
            f"the open file is closed or not open for reading: {quote(error)}", code="image-file-closed"
        ) from error
    except OSError as error:
        raise ResourceError(f"the open file cannot be read: {quote(error)}", code="image-file-unreadable") from error
    if len(content) > limit_bytes:
        raise ResourceError(f"the open file has more than {limit_bytes:,} bytes", code="image-file-too-large")
    return content


def _rewind(file: IO[bytes]) -> int | None:
    """Go to the beginning of a file and return where it stood, or ``None`` if it cannot seek."""
    try:
        position = file.tell()
        file.seek(0)
    except (AttributeError, OSError):  # not every file of another library says beforehand whether it can seek
        return None
    return position


def _read(file: IO[bytes], limit_bytes: int) -> bytes:
    parts, size = [], 0
    while size <= limit_bytes:
        part: object = file.read(limit_bytes + 1 - size)
        if not isinstance(part, bytes):
            raise _not_bytes(part)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _not_bytes(part: object) -> InputError:
    hint = "open it with mode 'rb'"
    if hasattr(part, "close") and hasattr(part, "send"):  # a coroutine, which is never awaited
        part.close()
        hint = "pass its attribute file, as upload.file of FastAPI, or await its content first"
    return InputError(
        f"read() of the open file returns {type(part).__name__}; expected bytes",
        code="image-file-not-binary",
        hint=hint,
    )
