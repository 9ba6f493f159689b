"""What is measured: a network in its precisions, the backends that open it, and one configuration of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.records.request import REFERENCE
from exporter.precision import spec as typing
from runtimes import Artifact, Backend
from runtimes.artifacts.manifest import Weights
from runtimes.errors import ArtifactError, Reason

NOISE = "noise"


@dataclass(frozen=True)
class Configuration:
    """What one row is of. ``cuda_graphs`` as ``runtimes.open`` takes it."""

    pair: Pair
    batch: int
    threads: int
    cuda_graphs: bool = True

    @property
    def reference(self) -> bool:
        """Whether the others are compared with it."""
        return is_reference(self.pair.backend.name, self.pair.typed.precision)


def is_reference(runtime: str, precision: str | None) -> bool:
    """Whether rows of the runtime in that precision are what the others are compared with: PyTorch in fp32."""
    return runtime == REFERENCE and precision == FP32


FP32 = typing.FP32.precision
"""What a variant is typed in if nothing else is asked for, and what the reference computes in."""

TYPED_FORMAT = "onnx"
"""Of the files that can be typed in any precision."""

PROGRAM_FORMAT = "pt2"
"""Of the files that PyTorch itself runs."""

REMADE_FORMATS = frozenset({TYPED_FORMAT, PROGRAM_FORMAT, "engine"})
"""Of the files whose network can be made again in PyTorch."""


@dataclass(frozen=True)
class Refusal:
    """Why there is nothing to measure, and the status of the results that say so."""

    status: Literal["failed", "skipped", "error"]
    reason: Reason


@dataclass(frozen=True)
class PrecisionVariant:
    """A network in one precision, ``None`` for a foreign file: the artifact, or why there is none. ``wanted`` is the
    format that it was to have."""

    precision: str | None
    made: Artifact | Refusal
    wanted: str = TYPED_FORMAT

    @property
    def format(self) -> str:
        """Of the artifact, or that it would have had."""
        return self.made.format.name if isinstance(self.made, Artifact) else self.wanted


@dataclass(frozen=True)
class Subject:
    """One network to measure.

    Attributes:
        name: as the user knows it: the variant's or the file's name.
        own: the file that was named, or ``None`` for a variant.
        network: the variant's name, or a foreign file's own name.
        weights: ``None`` for a foreign file.
        typed: in the precisions asked for, in that order.
        reference: the network in PyTorch, which computes in fp32.
        fixed_batch: that the artifacts take alone, or ``None``.
        data: the name of the images for it, or ``None`` for noise.
        programs: PyTorch's own in the precisions asked for, besides the twin: on a GPU alone, where they are what
            PyTorch's users run.
    """

    name: str
    own: Artifact | None
    network: str
    weights: Weights | None
    typed: tuple[PrecisionVariant, ...]
    reference: PrecisionVariant
    fixed_batch: int | None
    data: str | None
    programs: tuple[PrecisionVariant, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A backend, and what it opens: the network in one precision, or its twin; or why it cannot."""

    backend: Backend
    typed: PrecisionVariant
    opens: Artifact | Refusal


def classes_of(artifact: Artifact) -> int:
    """How many classes an artifact with a manifest tells apart.

    Raises:
        ArtifactError: its manifest does not fix the number.
    """
    classes = None if artifact.manifest is None else artifact.manifest.outputs[0].shape[-1]
    if not isinstance(classes, int):
        raise ArtifactError(
            "its manifest does not say how many classes there are", code="classes-unknown", path=artifact.path
        )
    return classes
