"""ONNX Runtime Web for a page: from a folder or an archive of the user, or from npm into the cache."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from exporter.weights.download import cache_folder
from runtimes import codec, files
from runtimes.errors import ArtifactError, BackendUnavailableError, IntegrityError, Reason, ResourceError, quote
from runtimes.tar_errors import TAR_ERRORS

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
"""The package on npm, and the version that pages are tested with."""

INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""The SHA-512 of the archive on npm, in base64."""

CODE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""The two files of the package that a page needs."""

DIGESTS = {
    CODE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""The SHA-256 of the files of ``VERSION``."""

MAX_BYTES = 256 << 20
"""The largest size of the archive, and of a file in it."""

NPM_LIMIT_S = 600
"""The time after which npm is stopped."""

ELSEWHERE = f"npm pack {PACKAGE}@{VERSION} on a machine with npm and network writes an archive for --onnxruntime-web"
"""The hint where npm cannot help."""


@dataclass(frozen=True)
class WebRuntime:
    """The files of ONNX Runtime Web.

    Attributes:
        version: The version, or ``unknown``.
        contents: The content of ``CODE`` and of ``WASM`` by these names.
    """

    version: str
    contents: Mapping[str, bytes]


def find_runtime(place: Path | None, notify: Callable[[str | Reason], None]) -> WebRuntime:
    """Return ONNX Runtime Web. Without a place, it is taken from the cache, and npm fills the cache.

    Args:
        place: A folder with the files, a folder with the package or with its ``node_modules``, the archive that
            ``npm pack`` writes, or ``None``.
        notify: Receives a notice before a download, and one about another version than ``VERSION``.

    Raises:
        BackendUnavailableError: npm is needed but not installed.
        ResourceError: A file is missing or cannot be read or written, or npm failed.
        ArtifactError: The archive is broken.
        IntegrityError: The archive from npm is not the published one.
    """
    if place is None:
        return WebRuntime(VERSION, _read_cache(notify))
    contents, version = _read_archive(place) if place.is_file() else _read_folder(place)
    if all(hashlib.sha256(contents[name]).hexdigest() == digest for name, digest in DIGESTS.items()):
        return WebRuntime(VERSION, contents)
    notify(
        Reason(
            "web-runtime-version",
            f"{quote(place)} is {PACKAGE} {version}; pages are tested with {VERSION}",
        )
    )
    return WebRuntime(version, contents)


def _read_folder(place: Path) -> tuple[dict[str, bytes], str]:
    """Return the files in a folder of the user, and their version."""
    package = place / "node_modules" / PACKAGE
    for folder in (place, place / "dist", package / "dist"):
        if (folder / CODE).is_file() and (folder / WASM).is_file():
            contents = {name: files.read_bounded(folder / name, MAX_BYTES) for name in DIGESTS}
            description = next((path for path in (folder, folder.parent) if (path / "package.json").is_file()), None)
            return contents, "unknown" if description is None else _version(
                files.read_bounded(description / "package.json", MAX_BYTES)
            )
    raise ResourceError(
        f"neither this place nor its dist nor its node_modules/{PACKAGE}/dist has {CODE} and {WASM}",
        code="web-runtime-missing",
        path=place,
        hint=f"npm install {PACKAGE}@{VERSION} there, or omit --onnxruntime-web",
    )


def _read_archive(path: Path) -> tuple[dict[str, bytes], str]:
    """Return the files in an archive that ``npm pack`` wrote, and their version."""
    try:
        with files.open_regular(path) as file, tarfile.open(fileobj=file) as archive:
            contents = {name: _read_member(archive, f"package/dist/{name}") for name in DIGESTS}
            return contents, _version(_read_member(archive, "package/package.json"))
    except (*TAR_ERRORS, KeyError, OSError) as error:
        raise ArtifactError(
            f"this is not the archive of {PACKAGE}: {quote(error)}",
            code="web-runtime-archive-broken",
            path=path,
            hint=f"npm pack {PACKAGE}@{VERSION} writes it",
        ) from error


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(name)
    content = archive.extractfile(member)
    if content is None or member.size > MAX_BYTES:
        raise ValueError(f"{name} is not a file of at most {MAX_BYTES:,} bytes")
    return content.read()


def _version(description: bytes) -> str:
    try:
        version = codec.parse(description)["version"]
    except (ArtifactError, KeyError, TypeError):
        return "unknown"
    return quote(str(version))


def _read_cache(notify: Callable[[str | Reason], None]) -> dict[str, bytes]:
    """Return the files of ``VERSION`` from the cache, after npm has filled it if they are missing or damaged there."""
    folder = cache_folder() / f"{PACKAGE}-{VERSION}"
    files.check_writable(folder)
    with files.folder_lock(folder):
        if not all(_is_whole(folder / name) for name in DIGESTS):
            notify(f"npm downloads {PACKAGE} {VERSION} (33 MB) into {quote(folder)}, once")
            for name, content in _download().items():
                with files.write_atomically(folder / name) as temporary:
                    temporary.write_bytes(content)
        return {name: files.read_bounded(folder / name, MAX_BYTES) for name in DIGESTS}


def _is_whole(path: Path) -> bool:
    return path.is_file() and files.sha256_of(path) == DIGESTS[path.name]


def _download() -> dict[str, bytes]:
    """Return the files of the archive that npm downloads."""
    npm = shutil.which("npm")
    if npm is None:
        raise BackendUnavailableError(
            f"a page needs {PACKAGE} {VERSION}, which npm downloads once, and npm is not installed",
            code="npm-missing",
            hint=f"install Node.js, or {ELSEWHERE}",
        )
    with tempfile.TemporaryDirectory() as folder:
        order = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", folder, "--ignore-scripts"]
        try:
            ended = subprocess.run(order, capture_output=True, text=True, errors="replace", timeout=NPM_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise ResourceError(
                f"npm did not download {PACKAGE} within {NPM_LIMIT_S} s", code="npm-timeout", hint=ELSEWHERE
            ) from error
        archive = next(iter(Path(folder).glob("*.tgz")), None)
        if ended.returncode or archive is None:
            lines = [line for line in ended.stderr.splitlines() if line.strip()]
            reason = next((line for line in lines if "npm error" in line.lower() or "ERR!" in line), "no archive")
            raise ResourceError(
                f"npm cannot download {PACKAGE} {VERSION}: {quote(reason)}", code="npm-failed", hint=ELSEWHERE
            )
        digest = hashlib.sha512(files.read_bounded(archive, MAX_BYTES)).digest()
        if base64.b64encode(digest).decode() != INTEGRITY:
            raise IntegrityError(
                f"the SHA-512 of the archive from npm is not that of {PACKAGE} {VERSION}",
                code="npm-digest-mismatch",
                hint="check the registry with: npm config get registry",
            )
        return _read_archive(archive)[0]
