"""An artifact: a model file and the manifest beside it. All that crosses between the three packages.

``resnet50.onnx`` has its manifest in ``resnet50.onnx.json`` and its test vectors in the ``.npz`` file that the
manifest names. The file's name is for people and is never parsed; its format is told by its first bytes. A model
file without a manifest is *foreign*: it opens, if its format cannot run code, and nothing is known about it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from runtimes import codec, files
from runtimes.artifacts.formats import FORMATS, Format, recognise
from runtimes.artifacts.manifest import FORMAT_VERSION, TF32, FileRecord, Manifest
from runtimes.artifacts.rebuild_command import remedy
from runtimes.errors import (
    ArtifactError,
    CompatibilityError,
    IntegrityError,
    ResourceError,
    RexportError,
    UnsafeArtifactError,
    quote,
)
from runtimes.tensors.spec import Array

MANIFEST_LIMIT_BYTES = 16 << 20
VECTORS_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True)
class Vectors:
    """Test vectors: ``inputs`` (7, c, h, w) float32, or (7, h, w, c) uint8 of an artifact that takes raw pixels, and
    ``logits`` (7, classes) float32 of PyTorch fp32."""

    inputs: Array
    logits: Array


def manifest_path(path: Path) -> Path:
    """Where a model file's manifest lies."""
    return path.with_name(path.name + ".json")


def _next_manifest_path(path: Path) -> Path:
    """Where a manifest waits while its model file is being put in place."""
    return path.with_name(path.name + ".json.next")


@dataclass(frozen=True)
class Artifact:
    """A model file that was looked at, and its manifest if it has one."""

    path: Path
    format: Format
    manifest: Manifest | None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Artifact:
        """Looks at the file's first bytes and reads its manifest; the model itself is not read.

        Raises:
            ResourceError: missing, unreadable or not a regular file.
            ArtifactError: no model file, or a broken manifest.
            CompatibilityError: the manifest is of a newer rexport.
            UnsafeArtifactError: a format that can run code, without a manifest.
        """
        place = Path(path)
        with files.open_regular(place) as file:
            head = file.read(64)
        manifest = _read_manifest(place)
        try:
            format = recognise(place, head)
            _check(place, format, manifest)
        except UnsafeArtifactError:
            raise
        except ArtifactError:
            _check_digest(place, manifest)  # a damaged file is the better explanation of a refusal
            raise
        return cls(place, format, manifest)

    @property
    def allows_tf32(self) -> bool:
        """Whether a GPU may compute its float32 in TensorFloat-32: only where its manifest says so."""
        return self.manifest is not None and self.manifest.precision == TF32

    def sibling(self, name: str) -> Path:
        """Where a file that the manifest names lies: in the model file's own folder.

        Raises:
            UnsafeArtifactError: the name is more than a plain file name.
        """
        return _sibling(self.path, name)

    def check_digest(self) -> None:
        """Reads the whole file and compares; does nothing for a foreign one.

        Raises:
            IntegrityError: a byte is not what the manifest promises.
        """
        _check_digest(self.path, self.manifest)

    def vectors(self) -> Vectors:
        """The artifact's test vectors.

        Raises:
            ArtifactError: it has none, or they are broken.
            IntegrityError: they were changed.
        """
        if self.manifest is None or self.manifest.vectors is None:
            hint = "export it with rexport"
            if self.manifest is None:
                hint = f"copy {quote(manifest_path(self.path).name)} and its vectors here, or {hint}"
            raise ArtifactError("it has no test vectors", code="vectors-absent", path=self.path, hint=hint)
        place = self.sibling(self.manifest.vectors.name)
        content = files.read_bounded(place, VECTORS_LIMIT_BYTES)
        if hashlib.sha256(content).hexdigest() != self.manifest.vectors.sha256:
            raise IntegrityError(
                "its bytes are not those that the manifest records", code="vectors-digest-mismatch", path=place
            )
        try:
            return _unpack_vectors(content)
        except Exception as error:  # NumPy's reader raises many kinds, a tokeniser's among them
            raise ArtifactError(f"not test vectors: {quote(error)}", code="vectors-unreadable", path=place) from error


def _check(path: Path, format: Format, manifest: Manifest | None) -> None:
    if manifest is not None and manifest.format != format.name:
        raise IntegrityError(
            f"its manifest says {manifest.format}, it is {format.name}", code="manifest-format-mismatch", path=path
        )
    if manifest is None and format.runs_code:
        raise UnsafeArtifactError(
            f"opening a .{format.name} file can run code, and this one has no manifest",
            code="manifest-required",
            path=path,
            hint=f"make it with: {_MAKERS[format.name]}",
        )
    if format.check is not None:
        format.check(path)


_MAKERS = {"pt2": "rexport torch VARIANT --weights FILE", "engine": "rexport tensorrt ARTIFACT.onnx"}


def _check_digest(path: Path, manifest: Manifest | None) -> None:
    if manifest is None:
        return
    for record in (FileRecord(path.name, manifest.sha256), *manifest.external):
        place = _sibling(path, record.name)
        if files.sha256_of(place) != record.sha256:
            raise IntegrityError(
                "its bytes are not those that its manifest records: it was changed or damaged after its export",
                code="file-digest-mismatch",
                path=place,
                hint=remedy(path, manifest),
            )


def _unpack_vectors(content: bytes) -> Vectors:
    import io
    import zipfile

    import numpy as np

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > VECTORS_LIMIT_BYTES:
            raise ValueError(f"more than {VECTORS_LIMIT_BYTES:,} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        vectors = Vectors(arrays["inputs"], arrays["logits"])
    known = {4: ("float32", "uint8"), 2: ("float32",)}
    for array, dimensions in ((vectors.inputs, 4), (vectors.logits, 2)):
        fits = array.dtype in known[dimensions] and array.ndim == dimensions
        if not fits or len(array) != len(vectors.inputs):
            raise ValueError(f"an array {array.dtype} {array.shape}")
    return vectors


def _sibling(path: Path, name: str) -> Path:
    try:
        plain = Path(name).name == name and name not in ("", ".", "..") and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        plain = False
    if not plain:
        raise UnsafeArtifactError(
            "its manifest names a file outside its folder", code="manifest-names-outside", path=path
        )
    return path.with_name(name)


def _read_manifest(path: Path) -> Manifest | None:
    """The manifest that goes with the file. Both are looked at where a writer was interrupted between two renames."""
    candidate = _parse_manifest(_next_manifest_path(path))
    if candidate is not None and candidate.sha256 == files.sha256_of(path):
        return candidate
    return _parse_manifest(manifest_path(path))


def _parse_manifest(path: Path) -> Manifest | None:
    """``None`` if there is no such file; a publisher may take a waiting manifest away at any moment."""
    try:
        text = files.read_bounded(path, MANIFEST_LIMIT_BYTES)
    except ResourceError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    version = _version_of(text)
    if version is not None and version > FORMAT_VERSION:
        raise CompatibilityError(
            f"a manifest of version {version}; this rexport reads up to {FORMAT_VERSION}",
            code="manifest-version-newer",
            path=path,
            hint="pip install --upgrade rexport",
        )
    try:
        return codec.loads(Manifest, text)
    except ArtifactError as error:
        raise ArtifactError(f"not a manifest: {error.what}", code=error.code, path=path) from error


def _version_of(text: bytes) -> int | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    version = data.get("format_version") if isinstance(data, dict) else None
    return version if isinstance(version, int) else None


def publish(model: Path, target: Path, manifest: Manifest, vectors: Path | None) -> Artifact:
    """Puts a finished model file, its test vectors and its manifest in their places.

    ``model`` and ``vectors`` are temporary files in the target's folder and are gone afterwards; the manifest names
    the vectors. At any moment of it, a reader finds the old artifact or the new one, whole.

    Raises:
        ResourceError: with the system's reason; the old artifact is as it was.
    """
    try:
        with files.folder_lock(target.parent):
            files.remove_stale(target)
            _settle(target)
            for place in (model, vectors):
                if place is not None:
                    files.sync(place)
            following = _next_manifest_path(target)
            with files.write_atomically(following) as temporary:
                temporary.write_bytes(_text_of(manifest))
            if vectors is not None and manifest.vectors is not None:
                os.replace(vectors, target.with_name(manifest.vectors.name))
            os.replace(model, target)
            os.replace(following, manifest_path(target))
            files.sync(target.parent)
            _remove_old_vectors(target, manifest)
    except OSError as error:
        raise ResourceError.from_os(error, target, "write") from error
    return Artifact(target, FORMATS[manifest.format], manifest)


def _text_of(manifest: Manifest) -> bytes:
    # A file name that is no Unicode has lone surrogates in Python; JSON can hold them escaped.
    return codec.dumps(manifest, indent=1).encode("utf-8", "backslashreplace") + b"\n"


def _settle(target: Path) -> None:
    """Finishes or undoes what a killed publisher left, so that only one manifest goes with the model file."""
    following = _next_manifest_path(target)
    try:
        candidate = _parse_manifest(following)
        finished = candidate is not None and candidate.sha256 == files.sha256_of(target)
    except RexportError:
        finished = False  # there is no model file yet, or somebody spoilt what waits
    if finished:
        os.replace(following, manifest_path(target))
    else:
        following.unlink(missing_ok=True)


def vectors_name(target: Path, sha256: str) -> str:
    """Named by content, so that writing new vectors leaves an older artifact's alone."""
    return f"{target.name}.{sha256[:8]}.vectors.npz"


def _remove_old_vectors(target: Path, manifest: Manifest) -> None:
    keep = manifest.vectors.name if manifest.vectors else None
    import glob

    for place in target.parent.glob(f"{glob.escape(target.name)}.{'[0-9a-f]' * 8}.vectors.npz"):
        if place.name != keep:
            place.unlink(missing_ok=True)
