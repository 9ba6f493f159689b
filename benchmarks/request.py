"""What the user asked for, and what it comes to: subjects, and for each the pairs of backend and artifact."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.data import BUNDLED_NAME, map_classes, open_dataset
from exporter.variants import VARIANTS, variant
from runtimes import Artifact, Backend, backends
from runtimes.errors import ArtifactError, ModelMismatchError, RexportError, UsageError, quoted

REFERENCE = "pytorch"
"""The runtime that every other is compared with: the network in eager mode."""

TWINNED_FORMAT = "onnx"
"""Of the files whose network can be made again in PyTorch."""

BUNDLED_VARIANT = "resnet20"
BUNDLED_WEIGHTS = "bundled"


@dataclass(frozen=True)
class Listener:
    """Hears what a run does: ``step`` what is being worked on and the step that it is at, ``notice`` a line that the
    user must see."""

    step: Callable[[str, str], None]
    notice: Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        subjects: paths of artifacts and names of variants; none means the bundled trained model.
        runtimes: by name; none means all that open the artifact.
        device: as ``runtimes.open`` takes it.
        batches: images in one call; none means 1, or what the artifact is fixed at.
        threads: processors that one call may use; ``None`` means all that this process may use.
        data: as ``exporter.data.open_dataset`` takes it; ``None`` means the bundled set where it fits, else noise.
        limit: images to evaluate at most.
        weights: of the variants, as ``exporter.weights.resolve`` takes them; ``None`` means random.
        seed: of random weights, of noise and of resampling.
        duration_s: of sampling, for latency and for compute each.
        silence_s: how long a worker may take for one step.
        show_errors: whether the workers' standard error is shown.

    Raises:
        UsageError: a duration that is none.
    """

    subjects: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    device: str = "cpu"
    batches: tuple[int, ...] = ()
    threads: int | None = None
    data: str | None = None
    limit: int | None = None
    weights: str | None = None
    seed: int = 0
    duration_s: float = 1.0
    silence_s: float = 600.0
    show_errors: bool = False

    def __post_init__(self) -> None:
        for name, value in (("duration", self.duration_s), ("timeout", self.silence_s)):
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"the {name} must be a number of seconds above 0, not {value}")


@dataclass(frozen=True)
class Subject:
    """An artifact to measure. ``data`` is the name of the images for it, or ``None`` for noise."""

    artifact: Artifact
    data: str | None

    @property
    def name(self) -> str:
        """What people call it: the variant, or a foreign file's own name."""
        return self.artifact.path.name if self.artifact.manifest is None else self.artifact.manifest.name

    @property
    def fixed_batch(self) -> int | None:
        """The batch that its manifest fixes, or ``None``."""
        first = None if self.artifact.manifest is None else self.artifact.manifest.inputs[0].shape[0]
        return first if isinstance(first, int) else None


@dataclass(frozen=True)
class Pair:
    """A backend, and what it opens: the subject's artifact or its PyTorch twin; or the reason why it cannot."""

    backend: Backend
    opens: Artifact | str


def completed(request: Request) -> Request:
    """The request with the bundled model in it where no subject was named."""
    if request.subjects:
        return request
    return replace(request, subjects=(BUNDLED_VARIANT,), weights=request.weights or BUNDLED_WEIGHTS)


def selected(request: Request) -> tuple[Backend, ...]:
    """The reference, then the backends that were asked for, or all.

    Raises:
        UsageError: one is unknown.
    """
    known = {backend.name: backend for backend in backends()}
    for name in request.runtimes:
        if name not in known:
            raise UsageError(f"no runtime {quoted(name)!r}", hint=f"one of {', '.join(known)}")
    names = dict.fromkeys((REFERENCE, *(request.runtimes or known)))
    return tuple(known[name] for name in names)


def subjects(request: Request, folder: Path, listener: Listener) -> tuple[Subject, ...]:
    """The artifacts that were named, and those of the variants that were named, exported into ``folder``.

    Raises:
        UsageError: an unknown variant; weights for none; a runtime that opens none of the files.
        ModelMismatchError: the data do not fit an artifact.
        RexportError: an artifact or the data cannot be read, or an export failed.
    """
    names = tuple(dict.fromkeys(request.subjects))
    files = {name: _file(name) for name in names if name not in VARIANTS}
    if request.weights is not None and len(files) == len(names):
        raise UsageError("--weights is for variants; all that is to be measured are files", hint="leave it out")
    for artifact in files.values():
        _check_runtimes(artifact, request)
        _subject(artifact, request)
    artifacts = [files[name] if name in files else _exported(name, request, folder, listener) for name in names]
    return tuple(_subject(artifact, request) for artifact in artifacts)


def _file(name: str) -> Artifact:
    if not Path(name).exists() and not Path(name).suffix and Path(name).name == name:
        variant(name)  # raises, and lists the variants
    return Artifact.read(name)


def _exported(name: str, request: Request, folder: Path, listener: Listener) -> Artifact:
    from exporter import network, onnx

    wanted = network.Request(
        variant(name), out=str(folder / f"{name}.onnx"), weights=request.weights or "random", seed=request.seed
    )
    return onnx.export(wanted, network.Listener(lambda step: listener.step(name, step), listener.notice))


def _check_runtimes(artifact: Artifact, request: Request) -> None:
    able = {backend.name for backend in _able(artifact, selected(request))}
    for name in request.runtimes:
        if name not in able:
            raise UsageError(f"runtime {name} does not open {artifact.format.name} files", path=artifact.path)


def _able(artifact: Artifact, among: Sequence[Backend]) -> tuple[Backend, ...]:
    """Those that open the artifact, or its twin, and the reference in any case."""
    formats = {artifact.format.name}
    if artifact.format.name == TWINNED_FORMAT:
        formats |= set(among[0].formats)
    return (among[0], *(backend for backend in among[1:] if formats & set(backend.formats)))


def _subject(artifact: Artifact, request: Request) -> Subject:
    manifest = artifact.manifest
    prepared = manifest is not None and manifest.preprocessing is not None
    if request.data is None:
        known = manifest is not None and manifest.dataset == BUNDLED_NAME
        return Subject(artifact, BUNDLED_NAME if prepared and known else None)
    if manifest is None or not prepared:
        raise ModelMismatchError(
            "nothing says how images are prepared for this file", path=artifact.path, hint="leave --data out"
        )

    try:
        map_classes(open_dataset(request.data, 1).classes, manifest.labels, classes_of(artifact))
    except ModelMismatchError as error:
        raise ModelMismatchError(error.what, path=artifact.path, hint=error.hint) from error
    return Subject(artifact, request.data)


def classes_of(artifact: Artifact) -> int:
    """How many classes an artifact with a manifest tells apart.

    Raises:
        ArtifactError: its manifest does not fix the number.
    """
    classes = None if artifact.manifest is None else artifact.manifest.outputs[0].shape[-1]
    if not isinstance(classes, int):
        raise ArtifactError("its manifest does not say how many classes there are", path=artifact.path)
    return classes


def pairs(subject: Subject, request: Request, folder: Path, listener: Listener) -> tuple[Pair, ...]:
    """The reference first, then every other backend that opens the artifact or its twin, missing ones too."""
    twin = _Twin(subject, folder, listener)
    return tuple(
        Pair(backend, _opened(backend, subject.artifact, request.device, twin))
        for backend in _able(subject.artifact, selected(request))
    )


def _opened(backend: Backend, artifact: Artifact, device: str, twin: _Twin) -> Artifact | str:
    missing = backend.missing()
    if missing is not None:
        return missing
    if device not in backend.devices:
        return f"it runs on {', '.join(backend.devices)}, and {device} was asked for"
    return artifact if artifact.format.name in backend.formats else twin.get()


class _Twin:
    """A subject's network in PyTorch's own format, made when it is first wanted; or the reason why there is none."""

    def __init__(self, subject: Subject, folder: Path, listener: Listener) -> None:
        self._subject, self._folder, self._listener = subject, folder, listener
        self._made: Artifact | str | None = None

    def get(self) -> Artifact | str:
        if self._subject.artifact.format.name != TWINNED_FORMAT:
            return f"it has no PyTorch twin: only a file of format {TWINNED_FORMAT} can have one"
        if self._made is None:
            self._listener.step(self._subject.name, "making its PyTorch twin")
            from exporter.torch import reference

            try:
                self._made = reference(self._subject.artifact, Path(tempfile.mkdtemp(prefix="twin-", dir=self._folder)))
            except RexportError as error:
                self._made = f"it has no PyTorch twin: {error}"
        return self._made
