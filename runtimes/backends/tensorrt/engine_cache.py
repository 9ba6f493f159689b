"""The cache of engines that were built on first use: a folder with one artifact for each key.

Only one thread of all processes builds an engine at a time. The system releases the lock of a process that ends, and an
incomplete engine is never used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runtimes import files
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
from runtimes.escaping import shell_word

KEY_VERSION = 2
"""The version of the way engines are built. It changes with everything that is not a field of ``Key``."""


@dataclass(frozen=True)
class Key:
    """The key of a cached engine: all that its content depends on.

    Attributes:
        flavor: The library, for example ``tensorrt``.
        version: The version of the library, for example ``10.16.1.11``.
        gpu: The name of the GPU, for example ``NVIDIA H200``, or ``None`` without a GPU.
        compute_capability: The compute capability of the GPU, for example ``9.0``, or ``None`` without a GPU.
        driver: The CUDA version of the driver, for example ``13.0``, or ``None`` without a GPU.
        onnx_sha256: The digest of the ONNX file with its external data.
        settings: The settings of the build. The timing cache does not count: it only shortens a build.
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
        """The SHA-256 digest of the key as 64 hexadecimal digits."""
        without_cache = replace(self, settings=replace(self.settings, timing_cache=None))
        text = json.dumps([KEY_VERSION, asdict(without_cache)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def timing_cache_name(self) -> str:
        """The name of the timing cache: the same for all models on one GPU with one library and driver."""
        parts = [self.flavor, self.version, self.gpu, self.compute_capability, self.driver]
        return f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}.timing"


def default_folder() -> Path:
    """Return the folder of the cache: ``$REXPORT_CACHE``, or ``rexport/engines`` in the user's cache folder.

    The cache folder of the user is ``$XDG_CACHE_HOME`` or ``~/.cache``. The result need not exist.

    Raises:
        ResourceError: The user has no home folder.
    """
    configured = os.environ.get("REXPORT_CACHE")
    if configured:
        return Path(configured)
    user_cache = os.environ.get("XDG_CACHE_HOME")
    try:
        parent = Path(user_cache) if user_cache else Path.home() / ".cache"
    except RuntimeError as error:
        raise ResourceError(
            f"there is no folder for the cache of engines: {error}",
            code="engine-cache-without-home",
            hint="set REXPORT_CACHE to a folder",
        ) from error
    return parent / "rexport" / "engines"


def entry(key: Key, folder: Path, make: Callable[[Path], object], warn: Callable[[Reason], None]) -> Path:
    """Return the path of the cached engine for a key, after building it if it is missing or damaged.

    Args:
        key: The key of the engine.
        folder: The folder of the cache, which only this user may write to, because opening an engine can run code.
        make: Builds the engine and publishes it at the given path, completely or not at all, as
            ``runtimes.artifacts.artifact.publish``. Only one thread of all processes calls it for a key at a time.
        warn: Receives the reason of a delay: another process builds the engine, or the cached engine is damaged.

    Raises:
        UnsafeArtifactError: Other users may write to the folder, or it belongs to another user. Nothing was read.
        ResourceError: The folder cannot be created, read or locked.
        IntegrityError: The engine that ``make`` published is damaged.
        Exception: ``make`` raised an error. No engine is left.
    """
    path = claim_folder(folder) / f"{key.digest}.engine"
    if _find_fault(path) is None:
        return path

    def announce(holder: str) -> None:
        warn(Reason("engine-build-awaited", f"waiting until {holder} has built this engine"))

    with files.file_lock(path.with_name(f".{path.stem}.lock"), announce, files.LONG_PATIENCE_S):
        fault = _find_fault(path)
        if fault is None:
            return path
        if fault:
            warn(
                Reason("engine-cache-damaged", f"the cached engine is damaged and will be built again: {fault}"),
            )
        make(path)
        fault = _find_fault(path)
    if fault is not None:
        raise IntegrityError(
            f"the engine was built but is damaged: {fault or 'the file is missing'}",
            code="engine-cache-incomplete",
            path=path,
            hint="open the artifact again",
        )
    return path


def claim_folder(folder: Path) -> Path:
    """Create a folder that only this user may write to, or check an existing one, and return it.

    Raises:
        UnsafeArtifactError: Other users may write to the folder, or it belongs to another user.
        ResourceError: The folder cannot be created or accessed.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ResourceError.from_os(error, folder, "cache engines") from error
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeArtifactError(
            "other users can write to this folder of engines, and opening an engine can run code",
            code="engine-folder-writable",
            path=folder,
            hint=f"chmod 700 {shell_word(folder)}",
        )
    if status.st_uid != os.geteuid():
        raise UnsafeArtifactError(
            "this folder of engines belongs to another user, and opening an engine can run code",
            code="engine-folder-foreign",
            path=folder,
            hint="set REXPORT_CACHE to a folder of your own",
        )
    return folder


def _find_fault(path: Path) -> str | None:
    """Return ``None`` for a complete engine, ``""`` for a missing file, and otherwise what is wrong with the file."""
    try:
        artifact = Artifact.read(path)
        if artifact.format.name != "engine":
            return f"the file is of the format {artifact.format.name}"
        artifact.check_digest()
    except (ArtifactError, CompatibilityError) as error:
        return error.what
    except ResourceError as error:
        if error.errno == errno.ENOENT:
            return ""
        raise
    return None
