"""The search for an int8 or fp8 graph within the accuracy limits: recipes in turn, then layers that stay in floats.

Each candidate is written, checked and measured as the file that it would become. The first that passes is published.
The layers that stay in float32 are those with the largest own error in the candidate that came closest: the one with
the largest, then two, four and so on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from exporter.export_request import ExportListener
from exporter.format import count
from exporter.guesses import CODES
from exporter.network import Network
from exporter.precision import calibration_images, layer_errors
from exporter.precision.calibration_images import Examples
from exporter.precision.gate import AccuracyGate, describe_gate
from exporter.precision.graph_probes import name_of
from exporter.precision.layer_errors import GraphInputs, size_of
from exporter.precision.recipes import RECIPES, CalibrationRecipe, recipes_for
from exporter.precision.slowdown import describe_slowdown, measure_slowdown
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import Material
from runtimes import Artifact
from runtimes.artifacts.manifest import DEFAULT_RECIPE, Calibration, Gate, Slowdown
from runtimes.artifacts.rebuild_command import recipe_options
from runtimes.errors import BackendUnavailableError, CheckFailedError, CompatibilityError, UsageError, quote, suggest
from runtimes.protocol import Array

if TYPE_CHECKING:
    import onnx

FLOAT_OPERATORS = ("Conv", "Gemm", "MatMul", "Add")
"""The operators with quantised inputs, which can stay in float32."""

COMPARED_IMAGES = 32
"""The number of calibration images on which the own errors of layers are measured."""

REJECTIONS = ("gate-failed", "parity-failed")
"""The codes of checks that reject a candidate. All other errors end the search."""

NAME_CELLS = 34
"""The width of the first column of the table."""

SHOWN_LAYERS = 3
"""The largest number of unquantised layers that are named."""

CHANGE_CELLS = 26
"""The width of the second column."""

Write = Callable[["onnx.ModelProto", Calibration], Artifact]
"""A function that checks and publishes a graph, which it may change, or raises an error and leaves no file."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A way to make a quantised graph, and the graph.

    Attributes:
        recipe: The recipe.
        float_layers: The nodes that are not quantised.
        graph: The graph.
        calibration: The record of the calibration.
    """

    recipe: CalibrationRecipe
    float_layers: tuple[str, ...]
    graph: onnx.ModelProto
    calibration: Calibration

    @property
    def title(self) -> str:
        """The candidate in words."""
        layers = f" + {count(len(self.float_layers), 'float layer')}" if self.float_layers else ""
        return f"{self.recipe.name}{layers}"


@dataclass(frozen=True, eq=False)
class Rejection:
    """A candidate that failed a check.

    Attributes:
        candidate: The candidate.
        error: The error of the check.
        records: The figures of the accuracy gate; empty if the parity check failed before.
        exceeded: The number of limits that these figures exceed.
    """

    candidate: Candidate
    error: CheckFailedError
    records: tuple[Gate, ...]
    exceeded: int

    @property
    def distance(self) -> tuple[bool, int, float]:
        """How far the candidate is from being accepted, for comparisons.

        Parity counts first, then the number of exceeded limits, then the largest loss, or error without labels.
        """
        losses = (record.error if record.drop is None else record.drop for record in self.records)
        return not self.records, self.exceeded, max(losses, default=math.inf)


class Quantisation:
    """Makes quantised graphs of a network. Images are read once.

    Args:
        graph: The float32 graph with folded batch norms, which is not changed.
        network: The network of the graph.
        precision_spec: The precision.
        listener: Receives the progress.
    """

    def __init__(
        self, graph: onnx.ModelProto, network: Network, precision_spec: PrecisionSpec, listener: ExportListener
    ) -> None:
        self.graph = graph
        self._network = network
        self._spec = precision_spec
        self._listener = listener
        self._images: dict[int, Examples] = {}

    def images(self, recipe: CalibrationRecipe) -> Examples:
        """Return the calibration images of a recipe.

        Raises:
            RexportError: The images cannot be read, or are not known.
        """
        if recipe.times not in self._images:
            self._listener.step("reading the calibration images")
            number = recipe.times * self._spec.calibration_images
            examples = calibration_images.for_calibration(self._network, self._spec.calibration, number)
            for notice in () if self._images else examples.notices:
                self._listener.notice(notice)
            self._images[recipe.times] = examples
        return self._images[recipe.times]

    def candidate(
        self, recipe: CalibrationRecipe, float_layers: tuple[str, ...] = (), plain: Candidate | None = None
    ) -> Candidate:
        """Return a new candidate. With float layers in int8, the time that they cost is measured.

        Args:
            recipe: The recipe.
            float_layers: The nodes that are not quantised.
            plain: The candidate without float layers, which is made if it is ``None``.

        Raises:
            UsageError: A layer is unknown.
            RexportError: The images cannot be read, or the graph cannot be converted.
        """
        self._check_layers(float_layers)
        images = self.images(recipe)
        self._listener.step(f"calibrating on {images.description}, recipe {recipe.name}")
        material = Material(images.floats(0, len(images)), self._spec.deployment, recipe, float_layers)
        graph = self._spec.row.apply(self.graph, material)
        slowdown = None
        if float_layers and "cpu" in self._spec.row.devices:  # elsewhere, the times of this processor say nothing
            slowdown = self._slowdown(graph, plain or self.candidate(recipe))
        calibration = Calibration(
            quantiser=_quantiser(recipe),
            target=self._spec.deployment,
            data=images.description,
            images=len(images),
            recipe=recipe.name,
            float_layers=float_layers,
            slowdown=slowdown,
            kept_layers=self.kept,
            guesses=tuple(notice for notice in images.notices if notice.code in CODES),
        )
        return Candidate(recipe, float_layers, graph, calibration)

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The layers that the precision never quantises."""
        keep = self._spec.row.keep
        return () if keep is None else keep(self.graph)

    def _check_layers(self, float_layers: Sequence[str]) -> None:
        known = {name_of(node) for node in self.graph.graph.node if node.op_type in FLOAT_OPERATORS}
        for name in float_layers:
            if name not in known:
                raise UsageError(
                    f"the graph has no layer {quote(name)!r} that could stay in float32",
                    code="float-layer-unknown",
                    hint=suggest(name, sorted(known)),
                )

    def _slowdown(self, graph: onnx.ModelProto, plain: Candidate) -> Slowdown:
        self._listener.step("measuring the time of the float layers")
        return measure_slowdown(graph, plain.graph, self._batch(plain, 0))

    def _batch(self, candidate: Candidate, start: int) -> Array:
        """Return the calibration images from ``start`` on as one input of a graph, float32 (n, c, h, w)."""
        size = self.graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
        images = self.images(candidate.recipe)
        rows = images.floats(start, min(start + size, len(images)))
        filled: Array = rows[np.arange(size) % len(rows)]
        return filled

    def rank_layers(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the layers that can stay in float32, those with the largest own error in a candidate first.

        Args:
            candidate: The candidate.

        Raises:
            RexportError: No installed backend runs the graphs.
        """
        self._listener.step("measuring the own error of each layer")
        total = min(COMPARED_IMAGES, len(self.images(candidate.recipe)))
        starts = range(0, total, len(self._batch(candidate, 0)))
        batches = ((self._batch(candidate, start), start) for start in starts)
        inputs = (GraphInputs(batch, batch, min(len(batch), total - start)) for batch, start in batches)
        comparison = layer_errors.compare(candidate.graph, self.graph, inputs)
        nodes = [node for node in self.graph.graph.node if node.op_type in FLOAT_OPERATORS]
        able = {name_of(node) for node in nodes}.difference(self.kept)
        layers = [layer for stage in comparison.stages for block in stage.blocks for layer in block.layers]
        ordered = sorted(layers, key=lambda layer: -size_of(layer.new))
        return tuple(layer.name for layer in ordered if layer.name in able)


def export_calibrated(
    quantisation: Quantisation,
    precision_spec: PrecisionSpec,
    accuracy_gate: AccuracyGate,
    listener: ExportListener,
    write: Write,
) -> Artifact:
    """Publish a quantised graph: of the requested recipe, or of the first recipe that passes all checks.

    The search shows a table on the listener, a line for each candidate. There is no table if the default recipe passes
    and the user asked for no limit.

    Args:
        quantisation: Makes the graphs.
        precision_spec: The precision.
        accuracy_gate: The gate, which ``write`` runs.
        listener: Receives the progress and the table.
        write: Checks and publishes a graph.

    Raises:
        CheckFailedError: The requested recipe, or every candidate, failed a check. No file is left.
        RexportError: The images cannot be read, a graph cannot be converted, or the disk fails.
    """
    if quantisation.kept:
        listener.notice(_describe_kept(quantisation.kept, precision_spec.precision))
    if precision_spec.pinned:
        recipe = RECIPES[precision_spec.recipe or DEFAULT_RECIPE]
        candidate = quantisation.candidate(recipe, precision_spec.float_layers)
        return write(candidate.graph, candidate.calibration)
    return _Search(quantisation, precision_spec, accuracy_gate, listener, write).run()


class _Search:
    """The search, with the number of candidates that failed, and the one that came closest."""

    def __init__(
        self,
        quantisation: Quantisation,
        precision_spec: PrecisionSpec,
        accuracy_gate: AccuracyGate,
        listener: ExportListener,
        write: Write,
    ) -> None:
        self._quantisation = quantisation
        self._spec = precision_spec
        self._gate = accuracy_gate
        self._listener = listener
        self._write = write
        self._tried = 0
        self._closest: Rejection | None = None
        self._table_begun = False

    def run(self) -> Artifact:
        """Return the artifact of the first candidate that passes, or raise ``CheckFailedError``."""
        for candidate in self._candidates():
            self._gate.begin()
            try:
                # Writing adds the raw input and metadata to the graph.
                artifact = self._write(copy.deepcopy(candidate.graph), candidate.calibration)
            except CheckFailedError as error:
                if error.code not in REJECTIONS:
                    raise
                records: tuple[Gate, ...] = self._gate.records
                exceeded = sum(len(self._gate.failures(record)) for record in records)
                self._reject(Rejection(candidate, error, records, exceeded))
                self._show(candidate.title, self._describe_rejection(error), candidate)
                continue
            if self._tried or self._spec.max_drop is not None:
                self._show(candidate.title, "accepted", candidate)
            options = recipe_options(candidate.calibration)
            if options:
                self._listener.notice(f"{self._spec.precision}: {options} makes this file again, without a search")
            return artifact
        raise self._failure()

    def _reject(self, rejection: Rejection) -> None:
        self._tried += 1
        if self._closest is None or rejection.distance < self._closest.distance:
            self._closest = rejection

    def _candidates(self) -> Iterator[Candidate]:
        first, *others = recipes_for(self._spec.precision, self._spec.deployment).values()
        yield self._quantisation.candidate(first)
        for recipe in others:
            reason = self._cannot_try(recipe)
            if reason is None:
                try:
                    yield self._quantisation.candidate(recipe)
                    continue
                except (BackendUnavailableError, CompatibilityError) as error:  # no library for this recipe or graph
                    reason = error.what
            self._show(recipe.name, f"not tried: {reason}")
        assert self._closest is not None
        closest = self._closest.candidate
        layers = self._quantisation.rank_layers(closest)
        number = 1
        while number < len(layers):
            yield self._quantisation.candidate(closest.recipe, layers[:number], closest)
            number *= 2

    def _cannot_try(self, recipe: CalibrationRecipe) -> str | None:
        """Return the reason why a recipe with more images cannot be tried, or ``None``."""
        if recipe.times == 1:
            return None
        if self._gate.examples.targets is None:
            return "the accuracy gate needs these images"
        images, known = self._quantisation.images(recipe), self._quantisation.images(RECIPES[DEFAULT_RECIPE])
        return f"the data has only {count(len(known), 'image')}" if len(images) == len(known) else None

    def _show(self, title: str, verdict: str, candidate: Candidate | None = None) -> None:
        """Send a row of the table to the listener, after the head of the table if it is the first."""
        if not self._table_begun:
            self._table_begun = True
            change = "logit error" if self._gate.examples.targets is None else "change in top-1, pp"
            self._listener.notice(f"{f'{self._spec.precision} recipe':{NAME_CELLS}}{change:{CHANGE_CELLS}}verdict")
        records = self._gate.records if candidate is not None else ()
        change = _change(max(records, key=lambda record: (record.drop or 0.0, record.error))) if records else ""
        slowdown = None if candidate is None else candidate.calibration.slowdown
        cost = "" if slowdown is None else f"; {describe_slowdown(slowdown)}"
        self._listener.notice(f"{title:{NAME_CELLS}}{change:{CHANGE_CELLS}}{verdict}{cost}")

    def _describe_rejection(self, error: CheckFailedError) -> str:
        """Return the limits that were exceeded, on the first backend that exceeds one."""
        for record in self._gate.records:
            exceeded = self._gate.failures(record)
            if exceeded:
                return f"rejected on {record.runtime}: {'; '.join(map(str, exceeded))}"
        return f"rejected: {error.what}"

    def _failure(self) -> CheckFailedError:
        closest = self._closest
        assert closest is not None
        figures = "; ".join(f"{record.runtime}: {describe_gate(record)}" for record in closest.records)
        return CheckFailedError(
            f"none of {self._tried} ways to {self._spec.precision} is within the limits; {closest.candidate.title} "
            f"came closest: {figures or closest.error.what}",
            code="int8-not-within-limits",
            hint="--precision fp16, or a larger --max-drop" if self._spec.max_drop is not None else "--precision fp16",
        )


def _quantiser(recipe: CalibrationRecipe) -> str:
    """Return the name and version of the library that a recipe uses."""
    from exporter.precision import modelopt, quantise

    return modelopt.quantiser() if recipe.quantiser == "modelopt" else quantise.quantiser()


def _describe_kept(layers: Sequence[str], precision: str) -> str:
    """Return the layers that a precision never quantises as text, at most ``SHOWN_LAYERS`` by name."""
    named = ", ".join(layers[:SHOWN_LAYERS])
    more = f" and {len(layers) - SHOWN_LAYERS} more" if len(layers) > SHOWN_LAYERS else ""
    return (
        f"{precision}: {count(len(layers), 'layer')} in float16, because GPUs compute them no faster in {precision} "
        f"(few channels, groups, or a large kernel): {named}{more}"
    )


def _change(record: Gate) -> str:
    """Return the change of accuracy with its interval in percentage points, or the error of the logits."""
    if record.drop is None or record.drop_interval is None:
        return f"{100 * record.error:.2f} %"
    low, high = record.drop_interval
    return f"{0.0 - 100 * record.drop:+.2f} [{0.0 - 100 * high:+.2f}, {0.0 - 100 * low:+.2f}]"
