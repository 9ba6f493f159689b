"""Artifacts: a model file with its manifest and test vectors. Packages of rexport exchange only artifacts.

The manifest of ``resnet50.onnx`` is ``resnet50.onnx.json``. The test vectors are the ``.npz`` file that the manifest
names. The first bytes of a file determine its format; its name is never parsed. A model without a manifest can be
opened if its format cannot run code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from runtimes import codec, files
from runtimes.arguments import require_not_empty
from runtimes.artifacts.formats import FORMATS, Format, recognise
from runtimes.artifacts.manifest import FORMAT_VERSION, TF32, FileRecord, Manifest
from runtimes.artifacts.moves import find_renamed, follow_link, search_by_digest
from runtimes.artifacts.rebuild_command import EXPORT_AGAIN, rebuild_hint
from runtimes.errors import (
    ArtifactError,
    CompatibilityError,
    IntegrityError,
    ResourceError,
    RexportError,
    UnsafeArtifactError,
    quote,
)
from runtimes.escaping import shell_word
from runtimes.frozen_dataclass import dataclass
from runtimes.tensors.spec import Array

MANIFEST_LIMIT_BYTES = 16 << 20
"""The largest size of a manifest."""

VECTORS_LIMIT_BYTES = 256 << 20
"""The largest size of the test vectors, compressed and uncompressed."""


@dataclass(frozen=True)
class Vectors:
    """The test vectors of an artifact.

    Attributes:
        inputs: The inputs: float32 (7, c, h, w), or uint8 (7, h, w, c) for an artifact that takes raw pixels.
        outputs: The outputs of PyTorch in fp32 by name, float32: ``logits`` (7, classes), ``features`` (7, d), and maps
            (7, c, h, w).
    """

    inputs: Array
    outputs: Mapping[str, Array]

    @property
    def logits(self) -> Array:
        """The logits of PyTorch in fp32: float32 (7, classes). A trunk without a classifier has none."""
        return self.outputs["logits"]


def manifest_path(path: Path) -> Path:
    """Return the path of a model file's manifest."""
    return path.parent / f"{path.name}.json"  # not with_name: "." has no name


def _next_manifest_path(path: Path) -> Path:
    """Return the path of the next manifest, which ``publish`` writes before it replaces the model file."""
    return path.with_name(path.name + ".json.next")


@dataclass(frozen=True)
class Artifact:
    """A model file with its format and its manifest.

    ``Artifact.read`` returns one.

    Attributes:
        path: The model file.
        format: The format of the model file.
        manifest: The manifest, or ``None`` for a model without a manifest.
    """

    path: Path
    format: Format
    manifest: Manifest | None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Artifact:
        """Recognise the format of a model file, read its manifest, and check that the file is safe to open.

        The weights are not read, except where the check fails: then the digest is compared to find a damaged file.
        The manifest is looked for beside ``path``, and then, if that is a symbolic link, beside the target of the link;
        then ``Artifact.path`` is the target.

        Raises:
            UsageError: ``path`` is an empty text.
            ResourceError: The file is missing, unreadable or not a regular file.
            ArtifactError: The file is not a model file, or its manifest or structure is broken.
            IntegrityError: The file is damaged, or its format differs from the manifest.
            CompatibilityError: The manifest was written by a newer version of rexport.
            UnsafeArtifactError: The format can run code and there is no manifest, or the file refers to files outside
                its folder.
        """
        require_not_empty(path=path)
        model = follow_link(Path(path), manifest_path)
        head = files.read_head(model, 64)
        manifest = _read_manifest(model)
        try:
            format = _recognise(model, head, manifest)
            _check(model, format, manifest)
        except UnsafeArtifactError:
            raise
        except ArtifactError as error:
            if error.code == "external-data-missing":
                raise _with_renamed_data(model, manifest, error) from error
            _check_digest(model, manifest)  # if the file is damaged, that error explains the failure better
            raise
        return cls(model, format, manifest)

    @property
    def allows_tf32(self) -> bool:
        """Whether a GPU may compute float32 in TensorFloat-32, according to the manifest."""
        return self.manifest is not None and self.manifest.precision == TF32

    def sibling(self, name: str, sha256: str | None = None) -> Path:
        """Return the path of a file that the manifest names, in the folder of the model file.

        Args:
            name: The name in the manifest.
            sha256: The digest of the file, by which it is found if it was renamed together with the model file.

        Raises:
            UnsafeArtifactError: The name is not a plain file name.
        """
        path = _sibling(self.path, name)
        return path if sha256 is None else find_renamed(path, sha256)

    def check_digest(self) -> None:
        """Compare the digests of the model file and its external data with the manifest. Without one, do nothing.

        Raises:
            IntegrityError: A digest differs.
            ResourceError: A file cannot be read.
            UnsafeArtifactError: The manifest names a file outside its folder.
        """
        _check_digest(self.path, self.manifest)

    def vectors(self) -> Vectors:
        """Read the test vectors.

        Returns:
            Fresh arrays, which belong to the caller.

        Raises:
            ArtifactError: The artifact has no test vectors, or they are broken.
            IntegrityError: The digest of the test vectors differs from the manifest.
            ResourceError: The file cannot be read, or is too large.
            UnsafeArtifactError: The manifest names a file outside its folder.
        """
        if self.manifest is None or self.manifest.vectors is None:
            hint = EXPORT_AGAIN
            if self.manifest is None:
                hint = f"copy {quote(manifest_path(self.path).name)} and its vectors here, or {hint}"
            raise ArtifactError("the artifact has no test vectors", code="vectors-absent", path=self.path, hint=hint)
        path = self.sibling(self.manifest.vectors.name, self.manifest.vectors.sha256)
        if not os.path.lexists(path):
            raise ArtifactError(
                f"the test vectors {quote(path.name)} are not beside the model",
                code="vectors-file-missing",
                path=self.path,
                hint=f"copy them from where the model came from, or {EXPORT_AGAIN}",
            )
        content = files.read_bounded(path, VECTORS_LIMIT_BYTES)
        if hashlib.sha256(content).hexdigest() != self.manifest.vectors.sha256:
            raise IntegrityError(
                "the SHA-256 of the test vectors differs from the one in the manifest",
                code="vectors-digest-mismatch",
                path=path,
                hint=rebuild_hint(self.path, self.manifest),
            )
        try:
            return _unpack_vectors(content)
        except Exception as error:  # NumPy's reader raises many kinds of errors
            raise ArtifactError(
                f"the test vectors cannot be read: {quote(error)}",
                code="vectors-unreadable",
                path=path,
                hint=rebuild_hint(self.path, self.manifest),
            ) from error


def _with_renamed_data(model: Path, manifest: Manifest | None, error: ArtifactError) -> ArtifactError:
    """Return the error for missing external data, with the command if the file is there under another name.

    The name of external data stands in the model file, so that only the old name will do.
    """
    for record in () if manifest is None else manifest.external:
        path = _sibling(model, record.name)
        other = None if path.exists() else search_by_digest(path, record.sha256)
        if other is not None:
            hint = f"mv {shell_word(other)} {shell_word(path)}"
            return ArtifactError(error.what, code=error.code, path=error.path, hint=hint)
    return error


def _recognise(path: Path, head: bytes, manifest: Manifest | None) -> Format:
    """Return the format of a file by its first bytes ``head``, or by its manifest if that says that it is an engine.

    The first bytes of engines are not documented. If the digest is that of the manifest, the library judges the rest.

    Raises:
        ArtifactError: As for ``recognise``.
        IntegrityError: The digest differs from the manifest.
    """
    try:
        return recognise(path, head)
    except ArtifactError:
        if manifest is None or manifest.format != "engine":
            raise
    _check_digest(path, manifest)
    return FORMATS["engine"]


def _check(path: Path, format: Format, manifest: Manifest | None) -> None:
    if manifest is not None and manifest.format != format.name:
        raise IntegrityError(
            f"the file is of the format {format.name}, but its manifest says {quote(manifest.format)}",
            code="manifest-format-mismatch",
            path=path,
            hint=rebuild_hint(path, manifest),
        )
    if manifest is None and format.runs_code:
        raise UnsafeArtifactError(
            f"opening a {format.name} file can run code, and this file has no manifest",
            code="manifest-required",
            path=path,
            hint=f"{_EXPORT_COMMANDS[format.name]} writes the file with its manifest",
        )
    if format.check is not None:
        format.check(path)


_EXPORT_COMMANDS = {"pt2": "rexport torch VARIANT --weights FILE", "engine": "rexport tensorrt ARTIFACT.onnx"}
"""The commands that write the formats that can run code."""


def _check_digest(path: Path, manifest: Manifest | None) -> None:
    if manifest is None:
        return
    for record in (FileRecord(path.name, manifest.sha256), *manifest.external):
        file = _sibling(path, record.name)
        if files.sha256_of(file) != record.sha256:
            raise IntegrityError(
                "the file was changed or damaged after its export: its SHA-256 differs from the one in the manifest",
                code="file-digest-mismatch",
                path=file,
                hint=rebuild_hint(path, manifest),
            )


def _unpack_vectors(content: bytes) -> Vectors:
    import io
    import zipfile

    import numpy as np

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > VECTORS_LIMIT_BYTES:
            raise ValueError(f"the arrays have more than {VECTORS_LIMIT_BYTES:,} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        inputs = arrays["inputs"]
        outputs = {name: arrays[name] for name in arrays.files if name != "inputs"}
    if not outputs or not len(inputs):
        raise ValueError("there are no outputs" if len(inputs) else "there are no images")
    rows = [(inputs, ("float32", "uint8"), (4,)), *((array, ("float32",), (2, 4)) for array in outputs.values())]
    for array, dtypes, dimensions in rows:
        if array.dtype not in dtypes or array.ndim not in dimensions or len(array) != len(inputs):
            raise ValueError(f"unexpected array of {array.dtype} with shape {array.shape}")
    return Vectors(inputs, outputs)


def _sibling(path: Path, name: str) -> Path:
    try:
        plain = Path(name).name == name and name not in ("", ".", "..") and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        plain = False
    if not plain:
        raise UnsafeArtifactError(
            f"the manifest names {quote(name)!r}, which is not a plain file name in its folder",
            code="manifest-names-outside",
            path=path,
        )
    return path.with_name(name)


def _read_manifest(path: Path) -> Manifest | None:
    """Read the manifest of a model file: the next manifest if it belongs to the file, otherwise the usual one.

    Both exist if ``publish`` was killed between its two renames.
    """
    candidate = _parse_manifest(_next_manifest_path(path))
    if candidate is not None and candidate.sha256 == files.sha256_of(path):
        return candidate
    return _parse_manifest(manifest_path(path))


def _parse_manifest(path: Path) -> Manifest | None:
    """Read a manifest, or return ``None`` if the file is missing. ``publish`` may rename it at any moment."""
    try:
        text = files.read_bounded(path, MANIFEST_LIMIT_BYTES)
    except ResourceError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    try:
        data = codec.parse(text)
    except ArtifactError as error:
        raise _invalid(error, path) from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CompatibilityError(
            f"the manifest has format version {codec.show(version)}, but this version of rexport reads versions up "
            f"to {FORMAT_VERSION}",
            code="manifest-version-newer",
            path=path,
            hint="pip install --upgrade rexport",
        )
    try:
        return codec.decode(Manifest, data)
    except ArtifactError as error:
        raise _invalid(error, path) from error


def _invalid(error: ArtifactError, path: Path) -> ArtifactError:
    return ArtifactError(f"the manifest is invalid: {error.what}", code=error.code, path=path)


def publish(model: Path, target: Path, manifest: Manifest, vectors: Path | None, replace: bool = True) -> Artifact:
    """Move a finished model file, its test vectors and its manifest to their final paths.

    At any moment, a reader finds either the old artifact or the new one, complete.

    Args:
        model: A temporary file in the target's folder. It is moved.
        target: The final path of the model file.
        manifest: The manifest, which names the test vectors.
        vectors: A temporary file in the target's folder, which is moved, or ``None``.
        replace: Whether a model file or manifest at the target is replaced.

    Returns:
        The published artifact.

    Raises:
        UsageError: There is a file at the target, and ``replace`` is off.
        ResourceError: A system call failed, or what is at the target is not a regular file. Readers still find a
            complete artifact.
    """
    try:
        with files.folder_lock(target.parent):
            files.remove_stale(target)
            _finish_interrupted(target)
            check_target(target, replace)
            for temporary_file in (model, vectors):
                if temporary_file is not None:
                    files.sync(temporary_file)
            try:
                _move(model, target, manifest, vectors)
            except BaseException:
                with contextlib.suppress(OSError, RexportError):
                    _finish_interrupted(target)
                    _remove_old_vectors(target, _parse_manifest(manifest_path(target)))
                raise
            _remove_old_vectors(target, manifest)
    except OSError as error:
        raise ResourceError.from_os(error, target, "write") from error
    return Artifact(target, FORMATS[manifest.format], manifest)


def _move(model: Path, target: Path, manifest: Manifest, vectors: Path | None) -> None:
    """Move the files of an artifact to their final paths. A kill leaves what ``_finish_interrupted`` settles."""
    next_manifest = _next_manifest_path(target)
    with (
        files.name_target(next_manifest, manifest_path(target)),
        files.write_atomically(next_manifest) as temporary,
    ):
        temporary.write_bytes(_encode_manifest(manifest))
    if vectors is not None and manifest.vectors is not None:
        os.replace(vectors, target.with_name(manifest.vectors.name))
    os.replace(model, target)
    os.replace(next_manifest, manifest_path(target))
    files.sync(target.parent)


def check_target(target: Path, replace: bool) -> None:
    """Check that the model file and the manifest of a target may be written.

    A manifest that rexport wrote and whose model file is gone may be replaced.

    Args:
        target: The path of the model file.
        replace: Whether existing files may be replaced.

    Raises:
        UsageError: The model file or a stranger's file in place of the manifest exists, and ``replace`` is off.
        ResourceError: One of them exists and is not a regular file.
    """
    manifest = manifest_path(target)
    files.check_replaceable(target)
    files.check_replaceable(manifest)
    if replace:
        return
    if target.exists():
        raise files.target_exists(target)
    if manifest.exists():
        try:
            _parse_manifest(manifest)
        except RexportError:
            raise files.target_exists(manifest) from None


def _encode_manifest(manifest: Manifest) -> bytes:
    # A file name that is not Unicode has lone surrogates in Python, which JSON represents as escapes.
    return codec.dumps(manifest, indent=1).encode("utf-8", "backslashreplace") + b"\n"


def _finish_interrupted(target: Path) -> None:
    """Finish or undo the work of a ``publish`` that was killed or failed, so that the model file has only one manifest.

    Raises:
        ResourceError: A file cannot be read. Nothing was changed.
    """
    next_manifest = _next_manifest_path(target)
    try:
        candidate = _parse_manifest(next_manifest)
        finished = candidate is not None and target.exists() and candidate.sha256 == files.sha256_of(target)
    except (ArtifactError, CompatibilityError):
        finished = False  # the next manifest is damaged
    if finished:
        os.replace(next_manifest, manifest_path(target))
    else:
        next_manifest.unlink(missing_ok=True)


def vectors_name(target: Path, sha256: str) -> str:
    """Return the file name of the test vectors of ``target`` with the digest ``sha256``.

    The name holds the digest, so that new test vectors never replace those of an older artifact.
    """
    return f"{target.name}.{sha256[:8]}.vectors.npz"


def _remove_old_vectors(target: Path, manifest: Manifest | None) -> None:
    keep = manifest.vectors.name if manifest is not None and manifest.vectors else None
    import glob

    for vectors in target.parent.glob(f"{glob.escape(target.name)}.{'[0-9a-f]' * 8}.vectors.npz"):
        if vectors.name != keep:
            vectors.unlink(missing_ok=True)
