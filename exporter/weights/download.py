"""torchvision's published ImageNet weights: fetched once, checked, and kept in the user's cache.

A download goes into a ``.part`` file that the next attempt, or the next process, goes on with. The first digits of a
file's SHA-256 stand in its name; only a file that meets them gets that name.
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
}
"""torchvision's first ImageNet weights (``IMAGENET1K_V1``) by variant."""

BASE_URL = "https://download.pytorch.org/models/"
URL_VARIABLE = "REXPORT_IMAGENET_URL"
"""Environment variable that names a mirror's folder in place of ``BASE_URL``."""

CACHE_VARIABLE = "REXPORT_CACHE"
"""Environment variable that names the cache's folder."""

MAX_BYTES = 1 << 30
"""Four times the largest published file; a server that sends more is not believed."""

TIMEOUT_S = 30.0
"""Without a byte from the server."""

ATTEMPTS = 5
"""Of which each goes on where the one before broke off."""

OFFLINE_HINT = "--weights FILE, --weights bundled (resnet20) and --weights random need no network"

_CHUNK_BYTES = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


Progress: TypeAlias = Callable[[float | None, str], None]
"""Gets the share of a step that is done, ``None`` where its end is not known, and how far that is in words."""


def ignore_progress(share: float | None, detail: str) -> None:
    """The progress that nobody looks at."""
    del share, detail


class _BrokenOffError(Exception):
    """The connection failed or was closed too early; another attempt may go on."""


def cache_folder() -> Path:
    """Where downloads are kept: ``$REXPORT_CACHE``, else ``$XDG_CACHE_HOME/rexport``, else ``~/.cache/rexport``.

    Raises:
        ResourceError: none of them is set and there is no home folder.
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
            "no home folder to keep downloads in", code="cache-folder-unknown", hint=f"set {CACHE_VARIABLE}=FOLDER"
        ) from error


def fetch(name: str, notify: Callable[[str], None], progress: Progress = ignore_progress) -> Path:
    """The path of the published file ``name``, downloaded if the cache has it not. Blocks; one process at a time.

    ``notify`` gets one line before the download, ``progress`` how far it is.

    Raises:
        ResourceError: no network, no such file on the server, or the cache cannot be written.
        IntegrityError: what came does not meet the digest in the name; it was removed.
        UsageError: the mirror's address is not http or https.
    """
    target = cache_folder() / name
    if target.is_file() and _is_whole(target):
        return target
    url = _address(name)
    try:
        files.check_writable(target.parent)
    except ResourceError as error:
        hint = f"set {CACHE_VARIABLE} to a folder that can be written"
        raise ResourceError(error.what, code=error.code, path=target.parent, hint=hint, errno=error.errno) from error
    with files.folder_lock(target.parent):
        if target.is_file() and _is_whole(target):  # another process was faster
            return target
        notify(f"downloading {url} into {target.parent}")
        part = target.with_name(f"{name}.part")
        _download(url, part, progress)
        if not _is_whole(part, name):
            part.unlink()
            raise IntegrityError(
                "what the server sent does not match the digest in the file's name; it was removed",
                code="download-digest-mismatch",
                path=target,
                hint="try again, or another network or mirror",
            )
        with files.write_atomically(target) as temporary:
            os.replace(part, temporary)
    return target


def _is_whole(path: Path, name: str | None = None) -> bool:
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
    """Fills ``part``, which may hold a beginning already."""
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            _continue(url, part, before, progress)
            return
        except _BrokenOffError as error:
            after = part.stat().st_size if part.exists() else 0
            if attempt == ATTEMPTS or after <= before:
                kept = f"; {after:,} bytes are kept, and the next try goes on from there" if after else ""
                raise ResourceError(
                    f"cannot download {quote(url)}: {error}{kept}", code="download-failed", hint=OFFLINE_HINT
                ) from error


def _continue(url: str, part: Path, have: int, progress: Progress) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = _opener().open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            _after_refused_range(url, part, have, error, progress)
            return
        raise ResourceError(
            f"cannot download {quote(url)}: the server says {error.code} {quote(error.reason)}",
            code="download-refused",
            hint=OFFLINE_HINT,
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _BrokenOffError(quote(reason)) from error
    with response:
        start, total = _extent(response, have)
        _receive(response, part, start, total, progress)


def _after_refused_range(url: str, part: Path, have: int, error: urllib.error.HTTPError, progress: Progress) -> None:
    """The server has nothing behind our last byte: either that was all, or the beginning is of another file."""
    if error.headers.get("Content-Range") != f"bytes */{have}":
        part.unlink()
        _continue(url, part, 0, progress)


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the response's bytes belong in the file, and the file's size if the server tells."""
    length = response.headers.get("Content-Length")
    if response.status == http.client.PARTIAL_CONTENT:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have:
            raise ResourceError(
                f"cannot download {quote(response.url)}: the server sent another part than asked for",
                code="download-range-wrong",
            )
        return have, None if found[2] == "*" else int(found[2])
    return 0, int(length) if length and length.isdigit() else None


def _receive(response: IO[bytes], part: Path, start: int, total: int | None, progress: Progress) -> None:
    if (total or 0) > MAX_BYTES:
        raise ResourceError(
            f"the server offers {total:,} bytes; the largest published file has a quarter of {MAX_BYTES:,}",
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
    """Follows to http and https alone; the standard handler would also follow to ftp."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise urllib.error.URLError(f"redirected to {quote(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_HttpRedirects)
