"""Export of a network to a ``.pt2`` program of ``torch.export``, which PyTorch runs.

In float32, batch norms stay, as in PyTorch's own networks. In a narrower float type they are folded first.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from exporter.export_request import ExportListener, ExportRequest
from exporter.models.layers import foldable_norms
from exporter.models.tracing import EXAMPLE_BATCH, trace
from exporter.network import Network, prepare
from exporter.precision.spec import FP32, PrecisionSpec, announce, check_limit
from exporter.targets.publish import Draft, ExportTarget, finish
from runtimes import Artifact, files
from runtimes.errors import CompatibilityError, UsageError, quote
from runtimes.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def export(request: ExportRequest, listener: ExportListener, precision_spec: PrecisionSpec = FP32) -> Artifact:
    """Export ``request.variant`` to a PyTorch program, check it and publish it.

    Inputs and outputs are those of ``exporter.targets.onnx_file.export``. The call blocks for some seconds.

    Args:
        request: The network and the destination.
        listener: Receives the progress and notices.
        precision_spec: A precision of float type.

    Returns:
        The published artifact.

    Raises:
        UsageError: The target exists, options contradict each other, or the precision has no program.
        CheckFailedError: The logits differ from those of the network, or the precision failed its accuracy gate. No
            file is left.
        RexportError: The weights or the data cannot be loaded, or the disk fails.
    """
    _element(precision_spec)
    with request.target(".pt2") as target:
        place = ExportTarget(target, request.batch, replace=request.force)
        return write_program(prepare(request, listener), place, None, listener, precision_spec)


def write_program(
    network: Network,
    place: ExportTarget,
    parent: str | None,
    listener: ExportListener,
    precision_spec: PrecisionSpec = FP32,
) -> Artifact:
    """Export a prepared network to a PyTorch program, check it and publish it.

    Args:
        network: The network.
        place: The destination. Its opset is ignored.
        parent: The digest of the artifact that the network came from, or ``None``.
        listener: Receives the progress and notices.
        precision_spec: A precision of float type.

    Returns:
        The published artifact.

    Raises:
        RexportError: As for ``export``.
    """
    import torch

    from exporter import version

    check_limit(precision_spec, network)
    announce(precision_spec, listener)
    listener.step("exporting to a PyTorch program")
    content = _program(network, place.batch, _element(precision_spec))
    with files.temporary_file(place.target) as file:
        file.write_bytes(content)
        draft = Draft(
            file=file,
            target=place.target,
            format="pt2",
            batch=place.batch,
            producers={"rexport": version(), "torch": torch.__version__},
            precision_spec=precision_spec,
            parent=parent,
            replace=place.replace,
        )
        return finish(draft, network, listener)


def _element(precision_spec: PrecisionSpec) -> str:
    """Return the float type of a program in the precision, or raise ``UsageError`` if there is none."""
    element = precision_spec.row.element
    if element is None:
        raise UsageError(
            f"a PyTorch program computes in a float type, but the precision is {precision_spec.precision}",
            code="program-needs-float",
            hint=f"use rexport onnx --precision {precision_spec.precision}",
        )
    return element


def _program(network: Network, batch: int | None, element: str) -> bytes:
    import torch

    from exporter.models.several_outputs import with_outputs

    typed = network.model if element == "float32" else _narrow(network, batch, element)
    module = with_outputs(typed, network.outputs)
    example = _example(network, batch)
    if network.raw and network.preprocessing is not None:
        module = _with_raw_input(module, network.preprocessing)
        example = torch.zeros(batch or EXAMPLE_BATCH, *network.size, network.in_channels, dtype=torch.uint8)
    program = trace(module, example, batch)
    for node in program.graph.nodes:  # traces contain paths of the exporting machine
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _example(network: Network, batch: int | None) -> Tensor:
    import torch

    return torch.zeros(batch or EXAMPLE_BATCH, network.in_channels, *network.size)


def _narrow(network: Network, batch: int | None, element: str) -> torch.nn.Module:
    """Return the network in a narrower float type. Its batch norms are known by the variant, else by the program.

    Raises:
        CompatibilityError: A module of the user mixes float types.
    """
    import torch

    from exporter.precision.fold import narrow, traced_norms

    dtype = getattr(torch, element)
    if network.variant is not None:
        return narrow(network.model, foldable_norms(network.variant), dtype)
    example = _example(network, batch)
    norms = traced_norms(trace(network.model, example, batch), network.model)
    result = narrow(network.model, norms, dtype)
    try:
        result(example)
    except RuntimeError as error:
        raise CompatibilityError(
            f"the module {network.name} cannot compute in {element}: {quote(error)}",
            code="module-not-narrow",
            hint="use x.dtype in place of torch.float32 in forward, or rexport onnx, whose graph is converted",
        ) from error
    return result


def _with_raw_input(model: torch.nn.Module, preprocessing: Preprocessing) -> torch.nn.Module:
    """Return the network for RGB pixels, uint8 (n, h, w, c), normalised as in ``runtimes.images.preprocessing``."""
    import torch

    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    swaps, scale = preprocessing.channel_order == "BGR", preprocessing.scale

    class RawInput(torch.nn.Module):
        mean: Tensor
        std: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", mean)
            self.register_buffer("std", std)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
            ordered = x.flip(3) if swaps else x  # (n, h, w, c)
            scaled = ordered.permute(0, 3, 1, 2).to(torch.float32) / scale  # (n, c, h, w)
            return self.model((scaled - self.mean) / self.std)  # type: ignore[no-any-return]

    return RawInput().eval()
