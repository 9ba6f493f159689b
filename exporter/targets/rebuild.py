"""The fp32 network that an artifact was made from: from the artifact's own weights, or from where they came."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data.dataset import BUNDLED_NAME
from exporter.models.variants import Variant
from exporter.network import ExportListener, Network, reference_logits
from exporter.precision.table import PRECISIONS
from exporter.targets.torch_program import write_program
from exporter.weights.sources import resolve
from runtimes import Artifact, codec
from runtimes.artifacts.manifest import Manifest, Weights
from runtimes.errors import ArtifactError, CompatibilityError, RexportError, quote
from runtimes.images.preprocessing import normalise
from runtimes.parity import LogitComparison

if TYPE_CHECKING:
    from torch import Tensor

    from exporter.models.resnet import ResNet

SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)


def reference(artifact: Artifact, folder: Path) -> Artifact:
    """The PyTorch twin of an artifact, in fp32, as a ``.pt2`` artifact in ``folder``; of an fp32 ``.pt2`` file itself.

    It takes what the artifact takes, raw pixels too, and must pass parity with the artifact's test vectors.

    Raises:
        ArtifactError: a foreign file, or one whose weights cannot be told apart.
        CompatibilityError: its weights are not at hand.
        CheckFailedError: the twin's logits are not those that the artifact was made from.
    """
    manifest = artifact.manifest
    if manifest is not None and (manifest.format, manifest.precision) == ("pt2", "fp32"):
        return artifact
    network = network_of(artifact, SILENT)
    batch = _manifest(artifact).inputs[0].fixed_batch
    return write_program(network, folder / f"{network.variant.name}.pt2", batch, _manifest(artifact).sha256, SILENT)


def network_of(artifact: Artifact, listener: ExportListener) -> Network:
    """The network in fp32 PyTorch, with the artifact's own test vectors.

    Out of a float32 ONNX file each folded convolution gets its weights back and a batch-norm that adds the folded bias:
    the same function, and the same operators as a network that was never folded. Of another precision the fp32
    weights are no longer in the file: they are loaded again from where its manifest says that they came from.

    Raises:
        ArtifactError: a foreign file, or one whose weights cannot be told apart.
        CompatibilityError: the weights are not at hand any more, or are others now.
    """
    manifest = _manifest(artifact)
    variant = codec.decode(Variant, manifest.variant)
    row = PRECISIONS.get(manifest.precision)
    own = manifest.format == "onnx" and row is not None and row.element == "float32"
    if own:
        artifact.check_digest()
    return Network(
        model=_rebuilt(artifact, variant) if own else _reload_network(artifact, variant, manifest.weights, listener),
        variant=variant,
        weights=manifest.weights,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        dataset=manifest.dataset,
        vectors=artifact.vectors(),
        images=f"the test vectors of {artifact.path.name}",
        data=BUNDLED_NAME if manifest.dataset == BUNDLED_NAME else None,
        raw=manifest.inputs[0].dtype == "uint8",
        seed=manifest.weights.seed or 0,
    )


def _manifest(artifact: Artifact) -> Manifest:
    if artifact.manifest is None:
        raise ArtifactError(
            "a foreign file does not say which network it is", code="network-unknown", path=artifact.path
        )
    return artifact.manifest


def _reload_network(artifact: Artifact, variant: Variant, weights: Weights, listener: ExportListener) -> ResNet:
    """The network with the weights loaded once more from their origin."""
    from exporter.models.resnet import build

    spec: str = weights.origin
    hint = "take the fp32 artifact of the same weights"
    if spec == "module":
        raise CompatibilityError(
            "its fp32 weights are not in it, and the PyTorch module that they came from is in no file",
            code="fp32-weights-unsaved",
            path=artifact.path,
            hint=hint,
        )
    if spec == "file":  # the manifest has its name alone: it is looked for beside the artifact, then right here
        beside = artifact.path.with_name(weights.source or "")
        spec = str(beside) if beside.is_file() else weights.source or ""
    try:
        loaded = resolve(spec, variant, weights.seed or 0, listener.notice, listener.progress)
    except RexportError as error:
        raise CompatibilityError(
            f"its fp32 weights are not in it and cannot be loaded again: {error}",
            code="fp32-weights-lost",
            path=artifact.path,
            hint=hint,
        ) from error
    model = build(variant)
    model.load_state_dict(loaded.state)
    # Not by digest: random weights differ by float32's rounding from one kind of processor to the next.
    if not _logit_error(model, artifact) <= PRECISIONS["fp32"].tolerance:
        raise CompatibilityError(
            f"its fp32 weights are not in it, and {quote(spec)} holds others now",
            code="fp32-weights-changed",
            path=artifact.path,
            hint=hint,
        )
    return model


def _logit_error(model: ResNet, artifact: Artifact) -> float:
    """How far the network's logits are from the artifact's test vectors, as parity counts it."""
    vectors, view = artifact.vectors(), _manifest(artifact).preprocessing
    raw = vectors.inputs.dtype == np.uint8 and view is not None
    inputs = normalise(vectors.inputs, view) if raw and view is not None else vectors.inputs
    return LogitComparison.compare(reference_logits(model, inputs), vectors.logits).relative_difference


def _rebuilt(artifact: Artifact, variant: Variant) -> ResNet:
    from exporter.models.resnet import build

    weights = _initialisers(artifact)
    model = build(variant)
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        try:
            state[name] = _value(module, kind, value, weights)
        except KeyError as error:
            raise ArtifactError(
                f"it has no weight {quote(error)}", code="graph-weight-missing", path=artifact.path
            ) from error
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
