"""Engines that were built on first use, kept for the next: one folder, an artifact a key.

Builders of one key take turns, across threads and processes. The system frees the lock of a builder that dies, so that
nobody waits longer than the living ones build; what a dead one left is never taken for an engine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runtimes.artifacts.artifact import Artifact
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.errors import (
    ArtifactError,
    CompatibilityError,
    IntegrityError,
    Reason,
    ResourceError,
    UnsafeArtifactError,
)

KEY_VERSION = 2
"""Counts what changes in how engines are built and is no field of a key."""


@dataclass(frozen=True)
class Key:
    """All that decides what an engine is.

    Attributes:
        flavor, version: of the library, as ``tensorrt`` and ``10.16.1.11``.
        gpu, compute_capability: that it is built on, as ``NVIDIA H200`` and ``9.0``; ``None`` where there is none.
        driver: the CUDA version of its driver, as ``13.0``, or ``None``.
        onnx_sha256: digest of the ONNX file, and through its manifest of what belongs to it.
        settings: all but the timing cache, which only makes a build shorter.
    """

    flavor: str
    version: str
    gpu: str | None
    compute_capability: str | None
    driver: str | None
    onnx_sha256: str
    settings: Settings

    @property
    def digest(self) -> str:
        """64 hexadecimal digits, other ones for every other key."""
        plain = replace(self, settings=replace(self.settings, timing_cache=None))
        text = json.dumps([KEY_VERSION, asdict(plain)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def default_folder() -> Path:
    """``$REXPORT_CACHE``, else ``rexport/engines`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. It need not exist.

    Raises:
        ResourceError: this user has no home.
    """
    named = os.environ.get("REXPORT_CACHE")
    if named:
        return Path(named)
    place = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(place) if place else Path.home() / ".cache"
    except RuntimeError as error:
        raise ResourceError(
            f"no place for engines: {error}", code="engine-cache-without-home", hint="name one: REXPORT_CACHE=FOLDER"
        ) from error
    return home / "rexport" / "engines"


def entry(key: Key, folder: Path, make: Callable[[Path], object], said: Callable[[Reason], None]) -> Path:
    """The engine of that key in ``folder``, which is made where it is missing; blocks while it is built.

    Args:
        key: of the engine.
        folder: of this user's own; its engines run code.
        make: builds the engine and publishes it at the path that it is given, as
            ``runtimes.artifacts.artifact.publish`` does, whole or not at all. Called only where no whole one is there,
        by one builder of the key at a time.
        said: is told why it takes long: another process builds it, or it was damaged.

    Raises:
        UnsafeArtifactError: others may write into the folder, or it is another's; nothing in it was read.
        ResourceError: the folder cannot be made, read or locked.
        IntegrityError: what ``make`` published is not whole.
        Whatever ``make`` raises; nothing is left then.
    """
    path = claim_folder(folder) / f"{key.digest}.engine"
    if _state(path) is None:
        return path
    with _turn(path, said):
        state = _state(path)
        if state is None:
            return path
        if state:
            said(
                Reason(
                    "engine-cache-damaged",
                    f"the engine in the cache is not what it was, so it is built again: {state}",
                )
            )
        make(path)
        state = _state(path)
    if state is not None:
        raise IntegrityError(
            f"the engine was built and is not whole: {state or 'there is none'}",
            code="engine-cache-incomplete",
            path=path,
        )
    return path


def claim_folder(folder: Path) -> Path:
    """The folder, which is this user's and nobody else may write into; made if it is missing.

    Raises:
        UnsafeArtifactError: it is not.
        ResourceError: it cannot be made or looked at.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ResourceError.from_os(error, folder, "keep engines in") from error
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others:
        raise UnsafeArtifactError(
            "others can put files into this folder of engines, and opening an engine can run code",
            code="engine-folder-writable",
            path=folder,
            hint=f"chmod 700 {shlex.quote(os.fspath(folder))}",
        )
    if status.st_uid != os.geteuid():
        raise UnsafeArtifactError(
            "this folder of engines is another user's, and opening an engine can run code",
            code="engine-folder-foreign",
            path=folder,
            hint="name one of your own: REXPORT_CACHE=FOLDER",
        )
    return folder


def _state(path: Path) -> str | None:
    """``None`` where a whole engine is at the path, ``""`` where nothing is, else what is wrong with it."""
    try:
        artifact = Artifact.read(path)
        if artifact.format.name != "engine":
            return f"it is {artifact.format.name}"
        artifact.check_digest()
    except (ArtifactError, CompatibilityError) as error:
        return error.what
    except ResourceError as error:
        if error.errno == errno.ENOENT:
            return ""
        raise
    return None


@contextlib.contextmanager
def _turn(path: Path, said: Callable[[Reason], None]) -> Iterator[None]:
    """Holds the lock of the engine at the path, waiting for it."""
    place = path.with_name(f".{path.stem}.lock")
    _close_in_forks()
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ResourceError.from_os(error, place, "lock") from error
    _held.add(descriptor)
    try:
        _lock(descriptor, place, said)
        yield
    finally:
        if descriptor in _held:  # else it was closed in a fork
            _held.discard(descriptor)
            os.close(descriptor)


def _lock(descriptor: int, place: Path, said: Callable[[Reason], None]) -> None:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace")
            said(
                Reason("engine-build-awaited", f"process {holder or 'unknown'} is building this engine: waiting for it")
            )
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError as error:
        raise ResourceError.from_os(error, place, "lock") from error


_held: set[int] = set()
"""Open lock files of this process."""


@functools.cache
def _close_in_forks() -> None:
    """A fork has its parent's open files, and would hold the lock of a parent that has died."""

    def close() -> None:
        for descriptor in _held:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        _held.clear()

    os.register_at_fork(after_in_child=close)
