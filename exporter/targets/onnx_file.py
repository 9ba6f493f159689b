"""A network as one self-contained ONNX file, through torch's dynamo exporter."""

from __future__ import annotations

import glob
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.network import INPUT, OUTPUT, ExportListener, ExportRequest, Network, prepare
from exporter.precision.spec import FP32, PrecisionSpec, convert_precision
from exporter.targets.publish import Draft, finish
from exporter.targets.raw_input import with_raw_input
from runtimes import Artifact, files
from runtimes.artifacts.manifest import Calibration, FileRecord
from runtimes.errors import CheckFailedError, CompatibilityError, UsageError, quote

if TYPE_CHECKING:
    import onnx

DEFAULT_OPSET = 20
ONE_FILE_BYTES = (2 << 30) - (64 << 20)
"""Weights beyond this go into a file of their own: protocol buffers end at 2 GiB."""

_DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class ExportTarget:
    """Where an export goes: ``target``, over what is there, for batches of ``batch`` images, or of any number, in
    ``opset`` of the ONNX standard, or in the one that its precision is usually written in."""

    target: Path
    batch: int | None = None
    opset: int | None = None


def export(
    request: ExportRequest, listener: ExportListener, opset: int | None = None, precision_spec: PrecisionSpec = FP32
) -> Artifact:
    """Exports, checks and publishes ``request.variant``; blocks for some seconds, for int8 up to minutes.

    The graph takes ``input`` (batch, channels, height, width) float32, or (batch, height, width, channels) uint8 where
    the request is for raw input, and gives ``logits`` (batch, classes) float32. Its batch-norms are folded into the
    convolutions in float32, before they are typed.

    Raises:
        UsageError: the target exists, or the request contradicts itself.
        CompatibilityError: this torch cannot write ``opset``, or no runtime here can run the graph.
        CheckFailedError: the graph is not valid, its logits are not the network's, or the precision failed its gate;
            nothing is left.
        RexportError: the weights or the data do not load; the disk.
    """
    place = ExportTarget(request.target(".onnx"), request.batch, opset)
    _opset(place, precision_spec)
    return export_network(prepare(request, listener), place, precision_spec, listener)


def export_network(
    network: Network, place: ExportTarget, precision_spec: PrecisionSpec, listener: ExportListener
) -> Artifact:
    """The same from a network that is there already; what lies at the place is replaced.

    Raises:
        As ``export``.
    """
    opset, target = _opset(place, precision_spec), place.target
    listener.step("exporting to ONNX")
    graph = tidy(_trace(network, place.batch, opset))
    _check_opset(graph, opset)
    graph, calibration = convert_precision(graph, network, precision_spec, listener)
    if network.raw and network.preprocessing is not None:
        graph = with_raw_input(graph, network.preprocessing)
    listener.step("checking the graph")
    with files.temporary_file(target) as file:
        external = _write(graph, file, target)
        try:
            _check(file)
            draft = Draft(
                file=file,
                target=target,
                format="onnx",
                batch=place.batch,
                producers=_producers(calibration),
                precision_spec=precision_spec,
                calibration=calibration,
                opset=opset,
                external=external,
            )
            artifact = finish(draft, network, listener)
        except BaseException:
            for record in external:
                target.with_name(record.name).unlink(missing_ok=True)
            raise
    _remove_old_weights(artifact)
    return artifact


def _opset(place: ExportTarget, precision_spec: PrecisionSpec) -> int:
    """Raises UsageError where the precision needs a newer one than was asked for."""
    row = precision_spec.row
    if place.opset is None:
        return max(DEFAULT_OPSET, row.opset)
    if place.opset < row.opset and row.opset > DEFAULT_OPSET:
        raise UsageError(
            f"{row.name} needs opset {row.opset}, and {place.opset} was asked for",
            code="opset-too-old",
            hint="leave --opset out",
        )
    return place.opset


_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters tell of their own deprecations and detours; what matters of it is checked afterwards."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _trace(network: Network, batch: int | None, opset: int) -> onnx.ModelProto:
    import torch

    # An example of two images: a batch of one would be taken for a constant by some of torch's versions.
    example = torch.zeros(batch or 2, network.variant.in_channels, *network.variant.size)
    with _quiet():
        try:
            program = torch.onnx.export(
                network.model,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=None if batch else {"x": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
        except (RuntimeError, ValueError) as error:
            raise CompatibilityError(
                f"torch {torch.__version__} cannot export this at opset {opset}: {quote(error)}",
                code="onnx-export-failed",
                hint=f"leave --opset out for {DEFAULT_OPSET}",
            ) from error
    if program is None:
        raise CompatibilityError(f"torch {torch.__version__} gave no ONNX program", code="onnx-program-missing")
    return program.model_proto


def tidy(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, changed in place: nodes named after the modules they come from, values after the nodes that
    make them, and none of the exporter's notes, which hold source lines and paths of the machine that it ran on."""
    scopes = [_module_of(node) for node in graph.graph.node]
    seen: Counter[str] = Counter()
    for node, module in zip(graph.graph.node, scopes, strict=True):
        name = f"{module}/{node.op_type}" if module else node.op_type
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        node.doc_string = ""
        del node.metadata_props[:]
    values = (*graph.graph.input, *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer)
    for item in (graph, graph.graph, *graph.functions, *values):
        item.doc_string = ""
        del item.metadata_props[:]
    renamed = {
        tensor.name: f"{tensor.name.removesuffix('.weight_bias')}.bias"
        for tensor in graph.graph.initializer
        if tensor.name.endswith(".weight_bias")
    }
    kept = {value.name for value in graph.graph.output}
    for node in graph.graph.node:
        renamed |= {name: node.name for name in node.output[:1] if name not in kept}
    for tensor in graph.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in graph.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    del graph.graph.value_info[:]
    return graph


def _module_of(node: onnx.NodeProto) -> str:
    """The dotted name of the module that a node comes from: of its weight, else of the innermost scope torch noted."""
    for name in node.input:
        if name.endswith(".weight"):
            return str(name.removesuffix(".weight"))
    for note in node.metadata_props:
        if note.key == "pkg.torch.onnx.name_scopes":
            scopes = [scope.strip(" '\"") for scope in note.value.strip("[]").split(",")]
            return str(scopes[-2]) if len(scopes) > 1 else ""
    return ""


def _check_opset(graph: onnx.ModelProto, opset: int) -> None:
    written = next((item.version for item in graph.opset_import if item.domain in _DEFAULT_DOMAINS), 0)
    if written != opset:
        import torch

        raise CompatibilityError(
            f"opset {opset} was asked for, torch {torch.__version__} wrote {written}",
            code="opset-not-written",
            hint=f"--opset 18 or above; without it, {DEFAULT_OPSET}",
        )


def _write(graph: onnx.ModelProto, place: Path, target: Path) -> tuple[FileRecord, ...]:
    """Writes the file; past 2 GiB the weights go beside the target, under a name that nothing else has."""
    import onnx

    if sum(len(tensor.raw_data) for tensor in graph.graph.initializer) <= ONE_FILE_BYTES:
        place.write_bytes(graph.SerializeToString())
        return ()
    name = f"{target.name}.{os.urandom(4).hex()}.data"
    weights = target.with_name(name)
    try:
        onnx.save(graph, os.fspath(place), save_as_external_data=True, location=name)
        files.sync(weights)
        return (FileRecord(name, files.sha256_of(weights)),)
    except BaseException:
        weights.unlink(missing_ok=True)
        raise


def _remove_old_weights(artifact: Artifact) -> None:
    """Removes what earlier exports to the same path, or interrupted ones, left beside it."""
    target = artifact.path
    keep = {record.name for record in artifact.manifest.external} if artifact.manifest else set()
    with files.folder_lock(target.parent):
        for place in target.parent.glob(f"{glob.escape(target.name)}.{'[0-9a-f]' * 8}.data"):
            if place.name not in keep:
                place.unlink(missing_ok=True)


def _check(place: Path) -> None:
    """Holds the written file to the ONNX standard and to what was promised of it.

    Raises:
        CheckFailedError: the checker refuses it, or a batch-norm was left unfolded.
    """
    import onnx

    try:
        onnx.checker.check_model(os.fspath(place), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailedError(f"torch wrote an invalid graph: {quote(error)}", code="graph-invalid") from error
    nodes = onnx.load(os.fspath(place), load_external_data=False).graph.node
    left = [node.name for node in nodes if node.op_type == "BatchNormalization"]
    if left:
        raise CheckFailedError(
            f"{len(left)} batch-norms were not folded, the first {quote(left[0])}", code="batch-norm-unfolded"
        )


def _producers(calibration: Calibration | None) -> dict[str, str]:
    import onnx
    import onnxscript
    import torch

    from exporter import version

    producers = {
        "rexport": version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxscript": onnxscript.__version__,
    }
    if calibration is not None:
        name, _, number = calibration.quantiser.partition(" ")
        producers[name] = number
    return producers
