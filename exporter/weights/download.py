"""Download of torchvision's published ImageNet weights, with a check of their digests and a cache.

A download is written to a ``.part`` file, which the next attempt or process continues. The name of a published file
contains the first digits of its SHA-256. A download gets this name only if its digest matches.
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeAlias

from runtimes import files
from runtimes.errors import IntegrityError, ResourceError, UsageError, quote

PUBLISHED = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587.pth",
    "resnext101_32x8d": "resnext101_32x8d-8ba56ff5.pth",
    "wide_resnet50_2": "wide_resnet50_2-95faca4d.pth",
    "wide_resnet101_2": "wide_resnet101_2-32ee1156.pth",
}
"""torchvision's first ImageNet weights (``IMAGENET1K_V1``) by variant."""

BASE_URL = "https://download.pytorch.org/models/"
"""The address of the folder with the published files."""

URL_VARIABLE = "REXPORT_IMAGENET_URL"
"""The environment variable with the address of a mirror, which replaces ``BASE_URL``."""

CACHE_VARIABLE = "REXPORT_CACHE"
"""The environment variable with the path of the cache folder."""

MAX_BYTES = 1 << 30
"""The largest size of a download, about four times the largest published file."""

TIMEOUT_S = 30.0
"""The time without a byte from the server after which an attempt fails."""

ATTEMPTS = 5
"""The largest number of attempts.

Each continues where the one before stopped. An attempt without progress is the last.
"""

OFFLINE_HINT = "--weights FILE, --weights bundled (resnet20) and --weights random need no network"
"""The hint for a failed download."""

_CHUNK_BYTES = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


Progress: TypeAlias = Callable[[float | None, str], None]
"""Receives the completed share of a step, ``None`` while its end is unknown, and a description of the progress."""


def ignore_progress(share: float | None, detail: str) -> None:
    """Ignore the progress.

    Args:
        share: Ignored.
        detail: Ignored.
    """
    del share, detail


class _BrokenOffError(Exception):
    """The connection failed or was closed too early. Another attempt can continue."""


def cache_folder() -> Path:
    """Return the folder for downloads: ``$REXPORT_CACHE``, ``$XDG_CACHE_HOME/rexport`` or ``~/.cache/rexport``.

    Raises:
        ResourceError: Neither variable is set, and there is no home folder.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if shared.startswith("/"):
        return Path(shared) / "rexport"
    try:
        return Path.home() / ".cache" / "rexport"
    except RuntimeError as error:
        raise ResourceError(
            "there is no home folder for downloads", code="cache-folder-unknown", hint=f"set {CACHE_VARIABLE}=FOLDER"
        ) from error


def fetch(name: str, notify: Callable[[str], None], progress: Progress = ignore_progress) -> Path:
    """Return the path of a published file in the cache, and download the file first if it is missing there.

    The call blocks until the download has finished. Other processes wait for it.

    Args:
        name: The name of the file, a value of ``PUBLISHED``.
        notify: Receives one line before a download.
        progress: Receives the progress of the download.

    Raises:
        ResourceError: The network or the file on the server is missing, or the cache is not writable.
        IntegrityError: The digest of the download does not match its name. The download was deleted.
        UsageError: The address of the mirror is not http or https.
    """
    target = cache_folder() / name
    if target.is_file() and _matches_digest(target):
        return target
    url = _address(name)
    try:
        files.check_writable(target.parent)
    except ResourceError as error:
        hint = f"set {CACHE_VARIABLE} to a writable folder"
        raise ResourceError(error.what, code=error.code, path=target.parent, hint=hint, errno=error.errno) from error
    with files.folder_lock(target.parent, files.LONG_PATIENCE_S):
        if target.is_file() and _matches_digest(target):  # another process was faster
            return target
        notify(f"downloading {url} into {target.parent}")
        part = target.with_name(f"{name}.part")
        _download(url, part, progress)
        if not _matches_digest(part, name):
            part.unlink()
            raise IntegrityError(
                "the SHA-256 of the download does not match the file's name, so the download was deleted",
                code="download-digest-mismatch",
                path=target,
                hint="try again, or use another network or mirror",
            )
        with files.write_atomically(target) as temporary:
            os.replace(part, temporary)
    return target


def _matches_digest(path: Path, name: str | None = None) -> bool:
    digits = (name or path.name).rpartition(".")[0].rpartition("-")[2]
    return len(digits) >= 8 and files.sha256_of(path).startswith(digits)


def _address(name: str) -> str:
    base = os.environ.get(URL_VARIABLE) or BASE_URL
    if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
        raise UsageError(
            f"{URL_VARIABLE} must begin with http:// or https://, not {quote(base)!r}", code="mirror-address-invalid"
        )
    return f"{base.rstrip('/')}/{name}"


def _download(url: str, part: Path, progress: Progress) -> None:
    """Complete ``part``, which may hold the beginning of the file."""
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue(url, part, before, progress)
            return
        except _BrokenOffError as error:
            after = part.stat().st_size if part.exists() else 0
            if attempt == ATTEMPTS or after <= before:
                kept = f"; {after:,} bytes are kept, and the next attempt continues there" if after else ""
                raise ResourceError(
                    f"cannot download {quote(url)}: {error}{kept}", code="download-failed", hint=OFFLINE_HINT
                ) from error


def _continue(url: str, part: Path, kept_bytes: int, progress: Progress) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={kept_bytes}-"} if kept_bytes else {})
    try:
        response = _opener().open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and kept_bytes:
            _handle_refused_range(url, part, kept_bytes, error, progress)
            return
        raise ResourceError(
            f"cannot download {quote(url)}: the server replied {error.code} {quote(error.reason)}",
            code="download-refused",
            hint=OFFLINE_HINT,
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _BrokenOffError(quote(reason)) from error
    with response:
        start, total = _response_range(response, kept_bytes)
        _receive(response, part, start, total, progress)


def _handle_refused_range(
    url: str, part: Path, kept_bytes: int, error: urllib.error.HTTPError, progress: Progress
) -> None:
    """Handle a server that has no bytes after ours: the file is complete, or its beginning belongs to another file."""
    if error.headers.get("Content-Range") != f"bytes */{kept_bytes}":
        part.unlink()
        _continue(url, part, 0, progress)


def _response_range(response: http.client.HTTPResponse, kept_bytes: int) -> tuple[int, int | None]:
    """Return the position of the response in the file, and the size of the file or ``None`` if it is unknown."""
    length = response.headers.get("Content-Length")
    if response.status == http.client.PARTIAL_CONTENT:
        content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not content_range or int(content_range[1]) != kept_bytes:
            raise ResourceError(
                f"cannot download {quote(response.url)}: the server sent another range than requested",
                code="download-range-wrong",
            )
        return kept_bytes, None if content_range[2] == "*" else int(content_range[2])
    return 0, int(length) if length and length.isdigit() else None


def _receive(response: IO[bytes], part: Path, start: int, total: int | None, progress: Progress) -> None:
    if (total or 0) > MAX_BYTES:
        raise ResourceError(
            f"the server offers {total:,} bytes; at most {MAX_BYTES:,} are accepted",
            code="download-size-excessive",
        )
    done = start
    try:
        with open(part, "ab" if start else "wb") as file:
            while chunk := _chunk(response):
                done += len(chunk)
                if done > MAX_BYTES:
                    raise ResourceError(
                        f"the server sends more than {MAX_BYTES:,} bytes", code="download-too-large", path=part
                    )
                file.write(chunk)
                share = done / total if total else None
                progress(share, f"{part.stem} · {done / 1e6:.0f}{f' of {total / 1e6:.0f}' if total else ''} MB")
    except OSError as error:
        raise ResourceError.from_os(error, part, "write") from error
    if total is not None and done < total:
        raise _BrokenOffError(f"the connection was closed after {done:,} of {total:,} bytes")


def _chunk(response: IO[bytes]) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(quote(error) or type(error).__name__) from error


class _HttpRedirects(urllib.request.HTTPRedirectHandler):
    """A handler that follows redirects only to http and https. The standard handler also follows them to ftp."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request for an http or https address, or raise an error for another one."""
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise urllib.error.URLError(f"redirected to {quote(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_HttpRedirects)
