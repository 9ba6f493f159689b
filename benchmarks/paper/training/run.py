"""A training run on disk: begun, gone on with, finished; and what it leaves.

``run.json``               what it is a run of, and at its end what came out
``curve.jsonl``            a line for each point of the curve
``checkpoint.safetensors`` all that a run needs to go on, to the bit; removed at the end
``weights.safetensors``    the trained network, which ``rexport onnx --weights`` takes
``states/``                the network on its way, where that was asked for: ``ITERATION.safetensors``
"""

from __future__ import annotations

import dataclasses
import json
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from benchmarks.machine.environment import environment
from benchmarks.paper.training.recipe import Recipe
from benchmarks.paper.training.step import Arithmetic
from benchmarks.records.findings import check_version
from exporter.models.variants import VARIANTS, Shortcut, Variant
from exporter.weights import checkpoint
from runtimes import codec, files
from runtimes.errors import ArtifactError, IntegrityError, UsageError

RUN, CURVE, CHECKPOINT, WEIGHTS = "run.json", "curve.jsonl", "checkpoint.safetensors", "weights.safetensors"
STATES = "states"
SCHEMA_VERSION = 1

FILE_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Identity:
    """What makes a run the same run: all that decides its weights but for what rounding does to them.

    Attributes:
        variant: with the data's classes and the size that it was trained at.
        corpus: SHA-256 of images and targets.
    """

    variant: Variant
    recipe: Recipe
    seed: int
    corpus: str

    @property
    def option(self) -> Shortcut | None:
        """Of the shortcuts, if it is not the variant's own."""
        row = VARIANTS.get(self.variant.name)
        return None if row is None or row.shortcut == self.variant.shortcut else self.variant.shortcut

    @property
    def name(self) -> str:
        """For messages: network, shortcut option if there is one to tell, and seed."""
        option = "" if self.option is None else f" option {self.option}"
        return f"{self.variant.name}{option}, seed {self.seed}"


@dataclass(frozen=True)
class TrainingSegment:
    """What computed the updates from an iteration on. A run that is left and gone on with under the same one ends in
    the same bits on a CPU; under another it is the same mathematics, rounded otherwise.

    Attributes:
        threads: of PyTorch, which sums in another order with other ones.
        machine: processor or GPU.
        versions: of Python and PyTorch.
    """

    since: int
    arithmetic: Arithmetic
    threads: int
    machine: str
    versions: dict[str, str]


@dataclass(frozen=True)
class CurvePoint:
    """Of a curve. Errors are top-1 fractions; ``train_error`` and ``loss`` are means over the updates since the point
    before, on augmented images, as the network was then; the others are of all images in evaluation mode."""

    iteration: int
    epoch: float
    learning_rate: float
    loss: float
    train_error: float
    validation_error: float | None
    test_error: float
    elapsed_s: float


@dataclass(frozen=True)
class FinalErrors:
    """Errors of the finished network in evaluation mode, without augmentation; top-1 fractions."""

    train_error: float
    validation_error: float | None
    test_error: float


@dataclass(frozen=True)
class Run:
    """What ``run.json`` holds.

    Attributes:
        data, classes, images: of the corpus: its name, its classes, its images by part.
        mean, std: that the network was trained with, one a channel, as shares of 255.
        sittings: what computed it, in order; one where it is all the same.
        step_s: of one update, alone on the device, measured at the end; ``None`` until then.
        input_share: of that, what making the batch takes; on a GPU at the most.
        elapsed_s: of training and evaluating, all sittings together.
        outcome: ``None`` until the run is finished.
    """

    identity: Identity
    data: str
    classes: tuple[str, ...]
    images: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sittings: tuple[TrainingSegment, ...]
    step_s: float | None = None
    input_share: float | None = None
    elapsed_s: float = 0.0
    outcome: FinalErrors | None = None
    run: int = SCHEMA_VERSION


@dataclass(frozen=True)
class TrainingProgress:
    """The part of a checkpoint that is no tensor: where the run is, whether it is still warming up, how many updates it
    has made since the last point, its time so far, and its points."""

    iteration: int
    warm: bool
    since: int
    elapsed_s: float
    points: tuple[CurvePoint, ...]


def open_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        ResourceError: there is none.
        ArtifactError: its record is damaged.
        CompatibilityError: it is of a newer rbench.
    """
    path = folder / RUN
    content = files.read_bounded(path, FILE_LIMIT_BYTES)
    check_version(content, "run", SCHEMA_VERSION, path)
    try:
        return codec.loads(Run, content)
    except ArtifactError as error:
        raise ArtifactError(error.what, path=path, hint="rbench paper train makes such a folder") from error


def state_of(folder: Path) -> tuple[int, dict[str, Tensor]]:
    """The iteration that a run has come to, and its network's state dict there: of its end, or of its checkpoint.

    Raises:
        ResourceError: it has neither.
        IntegrityError: the checkpoint is damaged.
        RexportError: as ``checkpoint.read``.
    """
    run = open_run(folder)
    if run.outcome is not None or not (folder / CHECKPOINT).exists():
        return run.identity.recipe.iterations, checkpoint.read(folder / WEIGHTS)
    _, progress, tensors = read_checkpoint(folder / CHECKPOINT)
    prefix = "model."
    return progress.iteration, {
        name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }


def states_of(folder: Path) -> tuple[tuple[int, dict[str, Tensor]], ...]:
    """What a run kept of its network on the way: iterations and state dicts, in order.

    Raises:
        RexportError: as ``checkpoint.read``.
    """
    found = sorted((folder / STATES).glob("*.safetensors"))
    return tuple((int(path.stem), checkpoint.read(path)) for path in found)


def curve(folder: Path) -> tuple[CurvePoint, ...]:
    """The points of the run's curve so far.

    Raises:
        ResourceError: there is none.
        ArtifactError: a line is damaged.
    """
    path = folder / CURVE
    lines = files.read_bounded(path, FILE_LIMIT_BYTES).splitlines()
    try:
        return tuple(codec.loads(CurvePoint, line) for line in lines)
    except ArtifactError as error:
        raise ArtifactError(error.what, path=path) from error


def begin_run(folder: Path, new: Run) -> Run:
    """The record of the run in the folder; of a ``new`` one, written, if there is none.

    Raises:
        UsageError: it is of another run.
        ArtifactError, ResourceError: as ``open_run``; the folder cannot be written.
    """
    if (folder / RUN).exists():
        found = open_run(folder)
        check_same(folder, found.identity, new.identity)
        return found
    put(folder / RUN, new)
    return new


def begin_segment(since: int, arithmetic: Arithmetic) -> TrainingSegment:
    """Of this process."""
    return TrainingSegment(since, arithmetic, torch.get_num_threads(), machine(arithmetic), versions())


def machine(arithmetic: Arithmetic) -> str:
    """What computes, in words."""
    if arithmetic.device == "cuda":
        return torch.cuda.get_device_name()
    about = environment()
    amx = ", AMX" if any(name.startswith("amx") for name in about.instruction_sets) else ""
    return f"{about.cpu}{amx}"


def versions() -> dict[str, str]:
    """Of what computes."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def check_same(folder: Path, found: Identity, wanted: Identity) -> None:
    """Refuses to go on with another run.

    Raises:
        UsageError: they differ; the message names in what.
    """
    differing = [
        f"{field.name} {_short(getattr(found, field.name))}, not {_short(getattr(wanted, field.name))}"
        for field in dataclasses.fields(Identity)
        if getattr(found, field.name) != getattr(wanted, field.name)
    ]
    if differing:
        raise UsageError(
            f"it holds another run: {'; '.join(differing)}", path=folder, hint="name a new folder, or the same options"
        )


def _short(value: object) -> str:
    if isinstance(value, Variant):
        return f"{value.name} ({value.classes} classes, shortcut {value.shortcut})"
    if isinstance(value, Recipe):
        return f"{value.name} of {value.iterations:,} iterations"
    text = str(value)
    return text if len(text) < 20 else f"{text[:12]}…"


def read_checkpoint(path: Path) -> tuple[Identity, TrainingProgress, dict[str, Tensor]]:
    """What a checkpoint holds.

    Raises:
        IntegrityError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        identity = codec.loads(Identity, metadata.get("identity", ""))
        return identity, codec.loads(TrainingProgress, metadata.get("progress", "")), tensors
    except (SafetensorError, ArtifactError) as error:
        raise IntegrityError(f"a damaged checkpoint: {error}", path=path, hint="remove it to begin again") from error


def put(path: Path, record: object) -> None:
    """Writes a record as JSON.

    Raises:
        ResourceError: as ``write_atomically``.
    """
    with files.write_atomically(path) as temporary:
        temporary.write_text(codec.dumps(record, indent=1) + "\n", encoding="utf-8")


def put_curve(path: Path, records: list[CurvePoint]) -> None:
    """Writes the points of a curve, a line each.

    Raises:
        ResourceError: as ``write_atomically``.
    """
    with files.write_atomically(path) as temporary:
        temporary.write_text("".join(f"{json.dumps(codec.encode(record))}\n" for record in records), encoding="utf-8")
