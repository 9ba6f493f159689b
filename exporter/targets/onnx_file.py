"""Export of a network to an ONNX file, with torch's dynamo exporter."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.export_request import ExportListener, ExportRequest
from exporter.models.layers import foldable_norms, layers
from exporter.models.tracing import EXAMPLE_BATCH, trace
from exporter.network import INPUT, Network, prepare
from exporter.precision.gate import gate_of
from exporter.precision.recipe_search import Quantisation, export_calibrated
from exporter.precision.spec import FP32, PrecisionSpec, announce, check_limit
from exporter.precision.table import Material
from exporter.targets.publish import Draft, ExportTarget, finish, manifest_of
from exporter.targets.raw_input import with_raw_input
from exporter.targets.repeated_blocks import draw_parameters, fold_parameters, repeat_blocks, shorten
from exporter.targets.strided_slices import pool_strided_slices
from runtimes import Artifact, files
from runtimes.artifacts.embedded import KEY, Embedded
from runtimes.artifacts.manifest import Calibration, FileRecord
from runtimes.errors import CheckFailedError, CompatibilityError, ResourceError, RexportError, UsageError, quote

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from exporter.models.variants import Variant

DEFAULT_OPSET = 20
"""The default opset of the ONNX standard."""

OLDEST_OPSET = 18
"""The oldest opset that torch writes."""

ONE_FILE_BYTES = (2 << 30) - (64 << 20)
"""The largest size of weights inside the ONNX file.

Protocol buffers end at 2 GiB, so larger weights get their own file.
"""

_UNREADABLE = ("Unable to open proto file", "Unable to parse proto from file")
"""The messages of onnx about a file that was written whole, if a call of the system fails while it is read."""

_DEFAULT_DOMAINS = ("", "ai.onnx")


def export(
    request: ExportRequest, listener: ExportListener, opset: int | None = None, precision_spec: PrecisionSpec = FP32
) -> Artifact:
    """Export ``request.variant`` to ONNX, check the file and publish it.

    The graph takes ``input``, float32 (batch, channels, height, width), or uint8 (batch, height, width, channels) for a
    request with raw input. It returns the outputs of the request in float32, by default ``logits`` (batch, classes).
    Batch norms are folded into the convolutions in float32 before the precision is converted. The call blocks for some
    seconds, for int8 up to minutes.

    Args:
        request: The network and the destination.
        listener: Receives the progress and notices.
        opset: The opset, or ``None`` for the default of the precision.
        precision_spec: The precision.

    Returns:
        The published artifact.

    Raises:
        UsageError: The target exists, or options contradict each other.
        CompatibilityError: The installed torch cannot write ``opset``, or no installed backend can run the graph.
        CheckFailedError: The graph is invalid, its logits differ from those of PyTorch, or the precision failed its
            accuracy gate. No file is left.
        RexportError: The weights or the data cannot be loaded, or the disk fails.
    """
    with request.target(".onnx") as target:
        place = ExportTarget(target, request.batch, opset, request.force)
        _resolve_opset(place, precision_spec)
        return export_network(prepare(request, listener), place, precision_spec, listener)


def export_network(
    network: Network, place: ExportTarget, precision_spec: PrecisionSpec, listener: ExportListener
) -> Artifact:
    """Export a prepared network to ONNX, check the file and publish it.

    Args:
        network: The network.
        place: The destination.
        precision_spec: The precision.
        listener: Receives the progress and notices.

    Returns:
        The published artifact.

    Raises:
        RexportError: As for ``export``.
    """
    opset = _resolve_opset(place, precision_spec)
    check_limit(precision_spec, network)
    listener.step("exporting to ONNX")
    graph = _trace(network, place.batch, opset)
    _check_opset(graph, opset)
    announce(precision_spec, listener)
    accuracy_gate = gate_of(network, precision_spec, listener)

    def write(typed: onnx.ModelProto, calibration: Calibration | None) -> Artifact:
        """Write, check and publish a graph, which is changed."""
        from onnx import helper

        if network.raw and network.preprocessing is not None:
            typed = with_raw_input(typed, network.preprocessing)
        listener.step("checking the graph")
        with files.temporary_file(place.target) as file:
            draft = Draft(
                file=file,
                target=place.target,
                format="onnx",
                batch=place.batch,
                producers=_producers(calibration),
                precision_spec=precision_spec,
                calibration=calibration,
                opset=opset,
                replace=place.replace,
            )
            helper.set_model_props(typed, {KEY: Embedded.of(manifest_of(draft, network)).as_json()})
            external = _write(typed, file, place.target)
            try:
                _check(file, network)
                artifact = finish(replace(draft, external=external), network, listener, accuracy_gate)
            except BaseException:
                with contextlib.suppress(OSError, RexportError):
                    _remove_old_weights(place.target, [place.target.with_name(record.name) for record in external])
                raise
        pattern = f"{glob.escape(place.target.name)}.{'[0-9a-f]' * 8}.data"
        _remove_old_weights(place.target, place.target.parent.glob(pattern))
        return artifact

    if precision_spec.row.calibrated and accuracy_gate is not None:
        quantisation = Quantisation(graph, network, precision_spec, listener)
        return export_calibrated(quantisation, precision_spec, accuracy_gate, listener, write)
    return write(precision_spec.row.apply(graph, Material(None, precision_spec.target)), None)


def _resolve_opset(place: ExportTarget, precision_spec: PrecisionSpec) -> int:
    """Return the opset, or raise ``UsageError`` if the requested opset is too old for the precision."""
    row = precision_spec.row
    if place.opset is None:
        return max(DEFAULT_OPSET, row.opset)
    if place.opset < row.opset and row.opset > OLDEST_OPSET:
        raise UsageError(
            f"{row.name} needs opset {row.opset}, but opset {place.opset} was requested",
            code="opset-too-old",
            hint="omit --opset",
        )
    return place.opset


_NOISY_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of the exporters about their own code. The result is checked afterwards."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
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
    """Return the tidy graph of a network, with folded batch norms."""
    from exporter.models.resnet import build
    from exporter.models.several_outputs import with_outputs

    model = with_outputs(network.model, network.outputs)
    short = None if network.variant is None else shorten(network.variant)
    if network.variant is None or short is None:
        return _trace_module(model, network, batch, opset)
    traced = with_outputs(build(short), network.outputs)
    draw_parameters(traced)
    graph = _trace_module(traced, network, batch, opset)
    return repeat_blocks(graph, network.variant, fold_parameters(network.variant, model))


def _trace_module(module: nn.Module, network: Network, batch: int | None, opset: int) -> onnx.ModelProto:
    """Return the tidy graph of a module with the inputs and outputs of a network."""
    import torch

    example = torch.zeros(batch or EXAMPLE_BATCH, network.in_channels, *network.size)
    traced = trace(module, example, batch)
    with _quiet():
        try:
            program = torch.onnx.export(
                traced,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=list(network.outputs),
                dynamic_shapes=None if batch else ({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except (RuntimeError, ValueError) as error:
            raise CompatibilityError(
                f"torch {torch.__version__} cannot export the network at opset {opset}: {quote(error)}",
                code="onnx-export-failed",
                hint=f"omit --opset to use opset {DEFAULT_OPSET}",
            ) from error
    if program is None:
        raise CompatibilityError(f"torch {torch.__version__} returned no ONNX program", code="onnx-program-missing")
    return tidy(pool_strided_slices(program.model_proto))


def tidy(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Simplify the names in a graph in place, and return the graph.

    Nodes are named after their modules, and values after the nodes that compute them. The notes of the exporter are
    deleted, because they contain source lines and paths of the exporting machine.
    """
    scopes = [_module_of(node) for node in graph.graph.node]
    counts: Counter[str] = Counter()
    for node, module in zip(graph.graph.node, scopes, strict=True):
        name = f"{module}/{node.op_type}" if module else node.op_type
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"
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
    outputs = {value.name for value in graph.graph.output}
    for node in graph.graph.node:
        renamed |= {name: node.name for name in node.output[:1] if name not in outputs}
    for tensor in graph.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in graph.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    del graph.graph.value_info[:]
    return graph


def _module_of(node: onnx.NodeProto) -> str:
    """Return the dotted name of a node's module: that of its weight, or the innermost scope that torch recorded.

    The scope counts for norms, because torch stores equal scales of several norms once.
    """
    for name in node.input:
        if name.endswith(".weight") and node.op_type not in ("BatchNormalization", "GroupNormalization"):
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
            f"opset {opset} was requested, but torch {torch.__version__} wrote opset {written}",
            code="opset-not-written",
            hint=f"use a {'higher' if opset < written else 'lower'} --opset, or omit it to use {DEFAULT_OPSET}",
        )


def _write(graph: onnx.ModelProto, path: Path, target: Path) -> tuple[FileRecord, ...]:
    """Write the file. Weights beyond ``ONE_FILE_BYTES`` go to a file beside ``target``, whose name holds its digest."""
    if sum(len(tensor.raw_data) for tensor in graph.graph.initializer) <= ONE_FILE_BYTES:
        path.write_bytes(graph.SerializeToString())
        return ()
    from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

    with files.temporary_file(target) as weights:
        convert_model_to_external_data(graph, location=weights.name)
        write_external_data_tensors(graph, os.fspath(weights.parent))
        files.sync(weights)
        digest = files.sha256_of(weights)
        record = FileRecord(f"{target.name}.{digest[:8]}.data", digest)
        for tensor in graph.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = record.name
        path.write_bytes(graph.SerializeToString())
        os.replace(weights, target.with_name(record.name))
    return (record,)


def _remove_old_weights(target: Path, weights: Iterable[Path]) -> None:
    """Remove those weights files, of earlier, failed or interrupted exports, that the manifest of ``target`` lacks."""
    with files.folder_lock(target.parent):
        manifest = Artifact.read(target).manifest if target.exists() else None
        keep = {record.name for record in manifest.external} if manifest else set()
        for path in weights:
            if path.name not in keep:
                path.unlink(missing_ok=True)


def _check(path: Path, network: Network) -> None:
    """Check the written file against the ONNX standard, and for batch norms that were not folded.

    Raises:
        CheckFailedError: The file is invalid, or contains a batch norm that can be folded.
        ResourceError: The file cannot be read.
    """
    import onnx

    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        if str(error).startswith(_UNREADABLE):
            raise ResourceError.from_os(OSError(quote(error)), path, "read") from error
        raise CheckFailedError(f"torch wrote an invalid graph: {quote(error)}", code="graph-invalid") from error
    nodes = onnx.load(os.fspath(path), load_external_data=False).graph.node
    unfolded = [name for name in _norms(nodes) if name not in _norms_that_stay(nodes, network.variant)]
    if unfolded:
        raise CheckFailedError(
            f"{len(unfolded)} batch norms were not folded, for example {quote(unfolded[0])}", code="batch-norm-unfolded"
        )


_NORM = "BatchNormalization"


def _norms(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return the modules of the batch norms of a graph."""
    return [node.name.removesuffix(f"/{_NORM}") for node in nodes if node.op_type == _NORM]


def _norms_that_stay(nodes: Sequence[onnx.NodeProto], variant: Variant | None) -> set[str]:
    """Return the modules of the batch norms that no convolution can take in.

    A variant knows them. Otherwise they are those that do not read a convolution, or do not read it alone.
    """
    if variant is not None:
        return {layer.norm for layer in layers(variant)} - foldable_norms(variant).keys()
    readers = Counter(value for node in nodes for value in node.input)
    folding = {node.output[0] for node in nodes if node.op_type == "Conv" and readers[node.output[0]] == 1}
    return set(_norms([node for node in nodes if node.op_type == _NORM and node.input[0] not in folding]))


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
