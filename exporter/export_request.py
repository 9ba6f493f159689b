"""The request for an export, and the receiver of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporter.models.custom import AnyNetwork
from exporter.models.outputs import DEFAULT_OUTPUTS
from exporter.preprocessing.options import NOTHING_CHOSEN, PreprocessingOptions
from exporter.weights.download import Progress, ignore_progress
from exporter.weights.entries import ANY_ENTRY, Selection
from exporter.weights.matching import Notify
from exporter.weights.sources import LoadedWeights
from runtimes import files, notices
from runtimes.artifacts.artifact import check_target
from runtimes.errors import Reason, UsageError, quote
from runtimes.folders import folder_to_fill
from runtimes.tensors.activation import Activation


@dataclass(frozen=True)
class ExportListener:
    """The receiver of an export's progress.

    Attributes:
        step: Receives a short description of each step when it begins.
        notice: Receives lines for the user.
        progress: Receives the completed share of the current step, ``None`` if unknown, and a description.
    """

    step: Callable[[str], None]
    notice: Notify
    progress: Progress = ignore_progress


@dataclass(frozen=True)
class ExpectedAccuracy:
    """The top-1 accuracy that the user measured, against which an artifact is checked.

    Attributes:
        top1: The share of correct predictions, 0 to 1.
        tolerance: The largest difference from it, 0 to 1.
    """

    top1: float
    tolerance: float

    @classmethod
    def from_percent(cls, top1: float | None, tolerance: float) -> ExpectedAccuracy | None:
        """Return the expectation for a top-1 accuracy in percent, or ``None`` without one.

        Args:
            top1: The top-1 accuracy, above 1 and at most 100 %.
            tolerance: The largest difference in percentage points.

        Raises:
            UsageError: A value is out of range. An accuracy of at most 1 may be a share.
        """
        if top1 is None:
            return None
        if not 1 < top1 <= 100 or not 0 <= tolerance <= 100:
            raise UsageError(
                f"--expect-top1 takes percent above 1 and up to 100, and --tolerance percentage points, not {top1:g} "
                f"and {tolerance:g}",
                code="expected-top1-invalid",
                hint=f"--expect-top1 {100 * top1:g}" if 0 < top1 <= 1 else None,
            )
        return cls(top1 / 100, tolerance / 100)


@dataclass(frozen=True)
class ExportRequest:
    """The request for an export.

    Attributes:
        variant: The variant, or a module that is none, with its weights loaded.
        out: The file to write, or a folder if it exists or ends in a slash.
        weights: As for ``exporter.weights.sources.resolve``, or loaded weights.
        seed: The seed of random weights and of noise.
        batch: The fixed batch size, or ``None`` for any.
        labels: A file with one label on each line, or the labels.
        preprocessing: The chosen fields of the preprocessing.
        data: The labelled images for test vectors and accuracy, as for ``exporter.data.opening.open_dataset``.
        force: Whether an existing file is replaced.
        raw: Whether the artifact takes raw pixels and contains the normalisation.
        expected: The expected accuracy on ``data``, or ``None`` without a check.
        chosen: The fields of the variant that the user chose: ``classes``, ``in_channels``, ``size``, ``stride``
            or ``shortcut``. A weights file determines the others.
        selection: The part of a weights file that is read.
        name: The name of the artifact's file in a folder, without its suffix. ``None`` means the name of the variant.
        outputs: The outputs that were asked for, of ``exporter.models.outputs.OUTPUTS``.
        activation: The step from the logits to probabilities, or ``None`` to find it.
    """

    variant: AnyNetwork
    out: str
    weights: str | LoadedWeights = "random"
    seed: int = 0
    batch: int | None = None
    labels: Path | tuple[str, ...] | None = None
    preprocessing: PreprocessingOptions = NOTHING_CHOSEN
    data: str | None = None
    force: bool = False
    raw: bool = False
    expected: ExpectedAccuracy | None = None
    chosen: frozenset[str] = frozenset()
    selection: Selection = ANY_ENTRY
    name: str | None = None
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    activation: Activation | None = None

    def target(self, suffix: str) -> AbstractContextManager[Path]:
        """Provide the file to write, with ``suffix`` if ``out`` is a folder, as ``target_file`` does.

        Raises:
            RexportError: As for ``target_file``.
        """
        return target_file(self.out, f"{self.name or self.variant.name}{suffix}", self.force)


@contextmanager
def target_file(out: str, name: str, force: bool) -> Iterator[Path]:
    """Provide the file to write, in a folder that exists and is writable, for a ``with`` block that writes it.

    If ``out`` ends in a slash, a missing folder is created, and the logger ``rexport`` announces it. If the block
    writes nothing, the folder is removed again.

    Args:
        out: The file, or a folder if it exists or ends in a slash.
        name: The name of the file in a folder.
        force: Whether the file may exist.

    Raises:
        UsageError: The path is not UTF-8. The file or its manifest exists and ``force`` is off, or a folder has its
            name.
        ResourceError: The folder is missing, or cannot be created or written, or there is something else than a file.
    """
    files.require_utf8(out)
    path = Path(out)
    if out.endswith("/") or path.is_dir():
        path = path / name
    if path.is_dir():
        raise UsageError(
            "the target is a folder", code="target-is-folder", path=path, hint="-o FILE names another file"
        )
    check_target(path, force)
    if not out.endswith("/"):
        files.require_folder(path.parent)
    created = not path.parent.exists()
    with folder_to_fill(path.parent):
        if created:
            notices.inform(Reason("folder-made", f"created the folder {quote(path.parent)}"))
        yield path
