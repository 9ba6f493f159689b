"""A network as a ``.pt2`` program of ``torch.export``: what PyTorch itself runs.

In float32 its batch-norms stay as they are, as in PyTorch's own networks; in a narrower float they are folded first.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.network import ExportListener, ExportRequest, Network, prepare
from exporter.precision.spec import FP32, PrecisionSpec, announce
from exporter.targets.publish import Draft, finish
from runtimes import Artifact, files
from runtimes.errors import UsageError
from runtimes.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from exporter.models.resnet import ResNet


def export(request: ExportRequest, listener: ExportListener, precision_spec: PrecisionSpec = FP32) -> Artifact:
    """Exports, checks and publishes ``request.variant``; blocks for some seconds.

    The program takes and gives what an ONNX file of ``exporter.targets.onnx_file`` does, in any precision that has a
    float.

    Raises:
        UsageError: the target exists, the request contradicts itself, or there are no programs in the precision.
        CheckFailedError: its logits are not the network's, or the precision failed its gate; nothing is left.
        RexportError: the weights or the data do not load; the disk.
    """
    _element(precision_spec)
    target = request.target(".pt2")
    return write_program(prepare(request, listener), target, request.batch, None, listener, precision_spec)


def write_program(
    network: Network,
    target: Path,
    batch: int | None,
    parent: str | None,
    listener: ExportListener,
    precision_spec: PrecisionSpec = FP32,
) -> Artifact:
    """The same from a network that is there already; ``parent`` is the digest of the artifact that it came from.

    What lies at the target is replaced.

    Raises:
        As ``export``.
    """
    import torch

    from exporter import version

    announce(precision_spec, listener)
    listener.step("exporting to a PyTorch program")
    content = _program(network, batch, _element(precision_spec))
    with files.temporary_file(target) as place:
        place.write_bytes(content)
        draft = Draft(
            file=place,
            target=target,
            format="pt2",
            batch=batch,
            producers={"rexport": version(), "torch": torch.__version__},
            precision_spec=precision_spec,
            parent=parent,
        )
        return finish(draft, network, listener)


def _element(precision_spec: PrecisionSpec) -> str:
    """The float that a program in the precision computes in.

    Raises:
        UsageError: it has none.
    """
    element = precision_spec.row.element
    if element is None:
        raise UsageError(
            f"PyTorch's eager operators compute in floats, and {precision_spec.precision} was asked for",
            code="program-needs-float",
            hint=f"rexport onnx --precision {precision_spec.precision}, which ONNX Runtime, OpenVINO and TensorRT run",
        )
    return element


def _program(network: Network, batch: int | None, element: str) -> bytes:
    import torch

    from exporter.precision.fold import FoldedResNet

    variant, dtype = network.variant, getattr(torch, element)
    typed = network.model if dtype == torch.float32 else FoldedResNet(network.model, dtype)
    module: torch.nn.Module = typed
    example = torch.zeros(batch or 2, variant.in_channels, *variant.size)
    if network.raw and network.preprocessing is not None:
        module = _raw(typed, network.preprocessing)
        example = torch.zeros(batch or 2, *variant.size, variant.in_channels, dtype=torch.uint8)
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(module, (example,), dynamic_shapes=shapes)
        for node in program.graph.nodes:  # they name the source files of the machine that the export ran on
            node.meta.pop("stack_trace", None)
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _raw(model: ResNet, preprocessing: Preprocessing) -> torch.nn.Module:
    """The network behind the normalisation of uint8 pixels (n, h, w, c), step by step as
    ``runtimes.images.preprocessing``."""
    import torch

    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))

    class RawInput(torch.nn.Module):
        mean: Tensor
        std: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("mean", mean)
            self.register_buffer("std", std)

        def forward(self, x: Tensor) -> Tensor:
            scaled = x.permute(0, 3, 1, 2).to(torch.float32) / 255  # (n, c, h, w)
            return self.model((scaled - self.mean) / self.std)  # type: ignore[no-any-return]

    return RawInput().eval()
