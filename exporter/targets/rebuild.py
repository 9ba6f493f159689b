"""The fp32 network of an artifact, rebuilt from the artifact's own weights or from their origin."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.data.opening import BUNDLED_NAME
from exporter.export_request import ExportListener
from exporter.models.layers import foldable_norms
from exporter.models.outputs import LOGITS
from exporter.models.variants import Variant
from exporter.network import Network
from exporter.precision.table import PRECISIONS
from exporter.targets.publish import ExportTarget
from exporter.targets.torch_program import write_program
from exporter.weights.entries import Selection
from exporter.weights.sources import from_file, resolve
from runtimes import Artifact, codec
from runtimes.artifacts.manifest import Manifest
from runtimes.errors import ArtifactError, CompatibilityError, RexportError, quote
from runtimes.escaping import shell_word
from runtimes.images.preprocessing import normalise
from runtimes.parity import OutputDifference

if TYPE_CHECKING:
    from torch import Tensor, nn

    from exporter.models.resnet import ResNet

SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)
"""A listener that ignores everything."""


def reference(artifact: Artifact, folder: Path) -> Artifact:
    """Write the PyTorch reference of an artifact, in fp32, as a ``.pt2`` artifact.

    An fp32 ``.pt2`` artifact is returned itself.

    The reference has the same input as the artifact, including raw pixels. It must pass the parity check against the
    artifact's test vectors.

    Args:
        artifact: The artifact.
        folder: The folder for the reference.

    Raises:
        ArtifactError: The artifact has no manifest, or its weights cannot be identified.
        CompatibilityError: The fp32 weights are not available.
        CheckFailedError: The logits of the reference differ from the test vectors.
    """
    manifest = _manifest(artifact)
    if (manifest.format, manifest.precision) == ("pt2", "fp32"):
        return artifact
    if not manifest.variant:
        return fp32_file_beside(artifact, "pt2")
    network = network_of(artifact, SILENT)
    batch = manifest.inputs[0].fixed_batch
    return write_program(network, ExportTarget(folder / f"{network.name}.pt2", batch), manifest.sha256, SILENT)


def fp32_file_beside(artifact: Artifact, format: str) -> Artifact:
    """Return the fp32 file of the same network, weights and input in the folder of an artifact.

    A module that is no variant cannot be built from its manifest, so only a file holds its fp32 weights.

    Args:
        artifact: The artifact.
        format: The format of the file, ``onnx`` or ``pt2``.

    Raises:
        CompatibilityError: There is no such file.
    """
    manifest = _manifest(artifact)
    wanted = manifest.name, manifest.weights.sha256, manifest.inputs
    for path in sorted(artifact.path.parent.glob(f"*.{format}")):
        try:
            other = Artifact.read(path)
        except RexportError:  # another, broken file is not a reference
            continue
        found = other.manifest
        same = found is not None and (found.name, found.weights.sha256, found.inputs) == wanted
        if found is not None and same and found.precision == "fp32" and path != artifact.path:
            other.check_digest()
            return other
    raise CompatibilityError(
        f"{quote(manifest.name)} is a module that is no variant, so its fp32 network cannot be built again, and there "
        f"is no .{format} file of it in fp32 in the same folder",
        code="module-not-rebuilt",
        path=artifact.path,
        hint=_export_command(artifact, manifest, "fp32", format),
    )


def module_unknown(artifact: Artifact, precision: str, format: str = "onnx") -> CompatibilityError:
    """Return the error for a module that cannot be built from its manifest. The hint exports it again.

    Args:
        artifact: The artifact of the module, which has a manifest.
        precision: The precision of the new file.
        format: The format of the new file, ``onnx`` or ``pt2``.
    """
    manifest = _manifest(artifact)
    return CompatibilityError(
        f"{quote(manifest.name)} is a module that is no variant, so its network cannot be built from the manifest",
        code="module-unknown-in-manifest",
        path=artifact.path,
        hint=_export_command(artifact, manifest, precision, format),
    )


def _export_command(artifact: Artifact, manifest: Manifest, precision: str, format: str) -> str:
    """Return the command that exports the module of an artifact again, to another file beside it."""
    command = {"onnx": "onnx", "pt2": "torch"}[format]
    if ":" not in manifest.name:
        return f"rexport.export(module, ...) or rexport {command} package.module:factory"
    weights, spec = manifest.weights, manifest.inputs[0]
    raw = spec.dtype == "uint8"
    channels, size = (spec.shape[3], spec.shape[1:3]) if raw else (spec.shape[1], spec.shape[2:])
    parts = [f"rexport {command} {shell_word(manifest.name)} --in-channels {channels} --size {size[0]}x{size[1]}"]
    if weights.origin == "file":
        given = (
            ("--weights", weights.source),
            ("--key", weights.key),
            ("--strip-prefix", weights.prefix),
            ("--expect-sha256", weights.file_sha256),
        )
        parts += [f"{option} {shell_word(value)}" for option, value in given if value]
    parts += ["--input raw"] if raw else []
    parts += [] if precision == "fp32" else [f"--precision {precision}"]
    parts += ["--calibration DIR"] if PRECISIONS[precision].calibrated and weights.trained else []
    return " ".join([*parts, f"-o {shell_word(artifact.path.with_suffix(f'.{precision}.{format}'))}"])


def network_of(artifact: Artifact, listener: ExportListener) -> Network:
    """Return the fp32 network of an artifact in PyTorch, with the artifact's test vectors.

    A float32 ONNX file with logits, or of a trunk, contains the weights. Each folded convolution gets its weights and a
    batch norm that adds the folded bias, which is the same function with the operators of the original network.
    Artifacts of other precisions and formats do not contain the fp32 weights, and neither do those with group norms,
    which the exporter merges with constants. These weights are loaded from the origin in the manifest.

    Args:
        artifact: The artifact.
        listener: Receives notices about the weights.

    Raises:
        ArtifactError: The artifact has no manifest, or its weights cannot be identified.
        CompatibilityError: The fp32 weights are no longer available, or have changed; or the artifact is of a module
            that is no variant.
    """
    manifest = _manifest(artifact)
    if not manifest.variant:
        raise module_unknown(artifact, "fp32")
    variant = codec.decode(Variant, manifest.variant)
    row = PRECISIONS.get(manifest.precision)
    float32 = row is not None and row.element == "float32"
    outputs = tuple(spec.name for spec in manifest.outputs)
    complete = LOGITS in outputs or not variant.classes
    contains_weights = manifest.format == "onnx" and float32 and variant.norm == "batch" and complete
    if contains_weights:
        artifact.check_digest()
    return Network(
        model=_rebuild_network(artifact, variant)
        if contains_weights
        else _reload_network(artifact, variant, outputs, listener),
        variant=variant,
        name=variant.name,
        classes=variant.classes,
        in_channels=variant.in_channels,
        size=variant.size,
        weights=manifest.weights,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        dataset=manifest.dataset,
        vectors=artifact.vectors(),
        images=f"the test vectors of {artifact.path.name}",
        data=BUNDLED_NAME if manifest.dataset == BUNDLED_NAME else None,
        raw=manifest.inputs[0].dtype == "uint8",
        seed=manifest.weights.seed or 0,
        outputs=outputs,
        activation=manifest.activation,
        guesses=manifest.guesses,
    )


def _manifest(artifact: Artifact) -> Manifest:
    if artifact.manifest is None:
        raise ArtifactError(
            "the file has no manifest that says which network it is", code="network-unknown", path=artifact.path
        )
    return artifact.manifest


def _reload_network(artifact: Artifact, variant: Variant, outputs: tuple[str, ...], listener: ExportListener) -> ResNet:
    """Return the network with the weights loaded from their origin."""
    from exporter.models.resnet import build

    weights = _manifest(artifact).weights
    spec: str = weights.origin
    hint = "use the fp32 artifact of the same weights"
    if spec == "module":
        raise CompatibilityError(
            "the artifact does not contain the fp32 weights, and the PyTorch module that they came from is not saved",
            code="fp32-weights-unsaved",
            path=artifact.path,
            hint=hint,
        )
    try:
        if spec == "file":  # the manifest has only the name: search the folder of the artifact, then the current folder
            beside = artifact.path.with_name(weights.source or "")
            spec = str(beside) if beside.is_file() else weights.source or ""
            selection = Selection(weights.key, weights.prefix, not variant.classes, weights.file_sha256)
            loaded = from_file(spec, variant, listener.notice, selection)
        else:
            loaded = resolve(spec, variant, weights.seed or 0, listener.notice, listener.progress)
    except RexportError as error:
        raise CompatibilityError(
            f"the artifact does not contain the fp32 weights, and they cannot be loaded again: {error}",
            code="fp32-weights-lost",
            path=artifact.path,
            hint=hint,
        ) from error
    model = build(variant)
    model.load_state_dict(loaded.state)
    # Digests do not help, because random weights differ by rounding between kinds of processors.
    if not _output_error(model, artifact, outputs) <= PRECISIONS["fp32"].tolerance:
        raise CompatibilityError(
            f"the artifact does not contain the fp32 weights, and {quote(spec)} now contains other weights",
            code="fp32-weights-changed",
            path=artifact.path,
            hint=hint,
        )
    return model


def _output_error(model: nn.Module, artifact: Artifact, outputs: tuple[str, ...]) -> float:
    """Return the largest relative difference of the network's outputs from the test vectors, as in the parity check."""
    from exporter.models.several_outputs import reference_outputs, with_outputs

    vectors, preprocessing = artifact.vectors(), _manifest(artifact).preprocessing
    raw = vectors.inputs.dtype == np.uint8 and preprocessing is not None
    inputs = normalise(vectors.inputs, preprocessing) if raw and preprocessing is not None else vectors.inputs
    values = reference_outputs(with_outputs(model, outputs), outputs, inputs)
    return max(
        OutputDifference.compare(name, value, vectors.outputs[name]).relative_difference
        for name, value in values.items()
    )


def _rebuild_network(artifact: Artifact, variant: Variant) -> ResNet:
    from exporter.models.resnet import build

    weights, folded = _initialisers(artifact), foldable_norms(variant)
    model = build(variant)
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        try:
            state[name] = _value(name, folded.get(name.rpartition(".")[0]), value, weights)
        except KeyError as error:
            raise ArtifactError(
                f"the graph has no weight {quote(error)}", code="graph-weight-missing", path=artifact.path
            ) from error
    model.load_state_dict(state)
    return model


def _value(name: str, convolution: str | None, fresh: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Return a parameter or statistic, from the graph or so that a batch norm only adds a bias.

    The exporter omits biases that are zero.

    Args:
        name: The name of the parameter or statistic.
        convolution: The convolution into which the batch norm of this name is folded, or ``None``.
        fresh: A tensor of the right shape.
        weights: The tensors of the graph.
    """
    import torch

    module, _, kind = name.rpartition(".")
    if kind == "bias":
        return weights.get(f"{convolution or module}.bias", torch.zeros_like(fresh))
    if kind == "num_batches_tracked":
        return torch.zeros_like(fresh)
    if convolution is None:
        return weights[name]
    if kind == "weight":
        return torch.full_like(fresh, math.sqrt(1 + _EPSILON))
    return torch.ones_like(fresh) if kind == "running_var" else torch.zeros_like(fresh)


_EPSILON = 1e-5
"""The number that ``torch.nn.BatchNorm2d`` adds to a variance."""


def _initialisers(artifact: Artifact) -> dict[str, Tensor]:
    import onnx
    import torch

    graph = onnx.load(os.fspath(artifact.path)).graph
    tensors = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "BatchNormalization":  # equal tensors of several norms are stored once, under one name
            module = node.name.removesuffix(f"/{node.op_type}")
            names = ("weight", "bias", "running_mean", "running_var")
            tensors |= {f"{module}.{kind}": tensors[name] for kind, name in zip(names, node.input[1:], strict=True)}
    return tensors
