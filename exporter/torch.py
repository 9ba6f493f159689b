"""A network as a ``.pt2`` program of ``torch.export``, batch-norms as they are: what PyTorch itself runs."""

from __future__ import annotations

import io
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.artifacts import Draft, finish, temporary
from exporter.network import Listener, Network, Request, prepare
from exporter.precision import PRECISIONS
from exporter.variants import Variant
from runtimes import Artifact, schema
from runtimes.errors import ArtifactError, CompatibilityError, quoted

if TYPE_CHECKING:
    from torch import Tensor

    from exporter.resnet import ResNet

_SILENT = Listener(step=lambda _: None, notice=lambda _: None)


def export(request: Request, listener: Listener) -> Artifact:
    """Exports, checks and publishes ``request.variant``; blocks for some seconds.

    Raises:
        UsageError: the target exists, or the request contradicts itself.
        CheckFailedError: its logits are not the network's; nothing is left.
        RexportError: the weights or the data do not load; the disk.
    """
    target = request.target(".pt2")
    return _export(prepare(request, listener), target, request.batch, None, listener)


def _export(network: Network, target: Path, batch: int | None, parent: str | None, listener: Listener) -> Artifact:
    import torch

    from exporter import version

    listener.step("exporting to a PyTorch program")
    content = _program(network, batch)
    with temporary(target) as place:
        place.write_bytes(content)
        draft = Draft(
            file=place,
            target=target,
            format="pt2",
            precision=PRECISIONS["fp32"],
            batch=batch,
            producers={"rexport": version(), "torch": torch.__version__},
            parent=parent,
        )
        return finish(draft, network, listener)


def _program(network: Network, batch: int | None) -> bytes:
    import torch

    variant = network.variant
    example = torch.zeros(batch or 2, variant.in_channels, *variant.size)
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.export.export(network.model, (example,), dynamic_shapes=shapes)
        for node in program.graph.nodes:  # they name the source files of the machine that the export ran on
            node.meta.pop("stack_trace", None)
        torch.export.save(program, buffer)
    return buffer.getvalue()


def reference(artifact: Artifact, folder: Path) -> Artifact:
    """The PyTorch twin of an ONNX artifact, as a ``.pt2`` artifact in ``folder``, from the ONNX file's own weights.

    Each folded convolution gets its weights back and a batch-norm that adds the folded bias: the same function, and
    the same operators as a network that was never folded. It must pass parity with the artifact's test vectors.

    Raises:
        ArtifactError: a foreign file, or one whose weights cannot be told apart.
        CompatibilityError: a precision that has no twin.
        CheckFailedError: its logits are not those that the artifact was made from.
    """
    manifest = artifact.manifest
    if manifest is None:
        raise ArtifactError("a foreign file does not say which network it is", path=artifact.path)
    if manifest.format == "pt2":
        return artifact
    if manifest.format != "onnx" or manifest.precision != "fp32":
        raise CompatibilityError(f"there is no twin of {manifest.format} in {manifest.precision}", path=artifact.path)
    artifact.check_digest()
    variant = schema.decode(Variant, manifest.variant)
    network = Network(
        model=_rebuilt(artifact, variant),
        variant=variant,
        weights=manifest.weights,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        dataset=manifest.dataset,
        vectors=artifact.vectors(),
        images="the test vectors of its ONNX file",
    )
    first = manifest.inputs[0].shape[0]
    batch = first if isinstance(first, int) else None
    return _export(network, folder / f"{manifest.name}.pt2", batch, manifest.sha256, _SILENT)


def _rebuilt(artifact: Artifact, variant: Variant) -> ResNet:
    from exporter.resnet import build

    weights = _initialisers(artifact)
    model = build(variant)
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        try:
            state[name] = _value(module, kind, value, weights)
        except KeyError as error:
            raise ArtifactError(f"it has no weight {quoted(error)}", path=artifact.path) from error
    model.load_state_dict(state)
    return model


def _value(module: str, kind: str, fresh: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """What a module's parameter or statistic becomes: read from the graph, or chosen so that batch-norm adds a bias.

    The exporter leaves out biases that are zero.
    """
    import torch

    folded = _convolution_of(module)
    if kind == "bias":
        return weights.get(f"{folded or module}.bias", torch.zeros_like(fresh))
    if folded is None:
        return weights[f"{module}.{kind}"]
    if kind == "weight":
        return torch.full_like(fresh, math.sqrt(1 + _EPSILON))
    return torch.ones_like(fresh) if kind == "running_var" else torch.zeros_like(fresh)


_EPSILON = 1e-5
"""What torch.nn.BatchNorm2d adds to a variance."""


def _convolution_of(module: str) -> str | None:
    """The convolution before a batch-norm, by name; ``None`` for what is no batch-norm."""
    parent, _, last = module.rpartition(".")
    if last.startswith("bn"):
        return f"{parent}.conv{last[2:]}".lstrip(".")
    if parent.endswith("downsample") and last == "1":
        return f"{parent}.0"
    return None


def _initialisers(artifact: Artifact) -> dict[str, Tensor]:
    import onnx
    import torch

    graph = onnx.load(os.fspath(artifact.path)).graph
    return {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
