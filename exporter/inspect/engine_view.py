"""Descriptions of engines for people: the settings of the build, and the layers from the engine inspector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.models.positions import HEAD, STEM, places
from runtimes import Artifact
from runtimes.artifacts.manifest import Engine, Manifest
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.backends.tensorrt.inspector import EngineLayer
from runtimes.backends.tensorrt.open import inspect_layers
from runtimes.errors import quote
from runtimes.protocol import summarise_precisions


@dataclass(frozen=True)
class EngineView:
    """The layers of an engine, and how many residual blocks were fused.

    Attributes:
        layers: The layers in their order, for the batch size that the first profile is tuned for.
        blocks: The number of residual blocks in the names of the layers.
        fused_blocks: The number of blocks whose addition runs inside the layer of a convolution.
        arithmetic: The precisions of the weighted layers as text.
    """

    layers: tuple[EngineLayer, ...]
    blocks: int
    fused_blocks: int
    arithmetic: str


def view(artifact: Artifact) -> EngineView:
    """Return the layers from the engine's inspector. The engine is checked and deserialised for it.

    Raises:
        BackendUnavailableError: The library of the engine or a GPU is missing.
        CompatibilityError: The engine is for another GPU or another version of the library.
        RexportError: As for ``runtimes.backends.tensorrt.open.inspect_layers``.
    """
    return summarise_layers(inspect_layers(artifact))


def summarise_layers(layers: Sequence[EngineLayer]) -> EngineView:
    """Return the summary of the layers."""
    positions = places([" ".join((row.layer.name, *row.layer.nodes)) for row in layers])
    blocks = (
        {position.block for position in positions if position.stage not in (STEM, HEAD)}
        if _names_nodes(layers)
        else set()
    )
    fused = {
        position.block
        for position, row in zip(positions, layers, strict=True)
        if position.block in blocks and row.layer.weighted and any(_is_addition(name) for name in row.layer.nodes)
    }
    return EngineView(tuple(layers), len(blocks), len(fused), summarise_precisions(row.layer for row in layers))


def _names_nodes(layers: Sequence[EngineLayer]) -> bool:
    return any(row.layer.nodes for row in layers)


def _is_addition(node: str) -> bool:
    return node.rpartition("/")[2].partition("_")[0] == "Add"


def layer_lines(found: EngineView) -> list[str]:
    """Return lines of text: a summary, then one line for each layer.

    The line of a layer has its precision, the number of its nodes, its name and its kernel.
    """
    kinds = Counter(row.layer.operator for row in found.layers)
    suffix = f", {found.fused_blocks} of {found.blocks} blocks with fused addition" if found.blocks else ""
    operators = ", ".join(f"{count} {quote(kind)}" for kind, count in kinds.most_common())
    lines = [f"{len(found.layers)} layers ({operators}){suffix}; weighted layers in {found.arithmetic}"]
    width = max((len(row.layer.precision) for row in found.layers), default=0)
    for row in found.layers:
        kernel = f"  [{quote(row.tactic)}]" if row.tactic else ""
        lines.append(f"{row.layer.precision:<{width}}  {len(row.layer.nodes):>2}  {quote(row.title)}{kernel}")
    return lines


def engine_facts(manifest: Manifest, engine: Engine) -> dict[str, str]:
    """Return the facts of an engine in its manifest, as a name and a text for each.

    Args:
        manifest: The manifest.
        engine: The build of the engine in the manifest.
    """
    flavor = FLAVORS[engine.flavor]
    built = f"on {engine.gpu}, driver for CUDA {engine.driver}" if engine.gpu else "on a machine without a GPU"
    return {
        "engine": f"{flavor.title} {engine.version}, built {built}",
        "runs on": _runs_on(engine),
        "profiles": "; ".join(map(str, engine.profiles)),
        "built with": "; ".join(_settings(engine)),
        "built from": f"{engine.onnx}, sha256 {manifest.parent}",
    }


def _runs_on(engine: Engine) -> str:
    if engine.flavor == "rtx":
        return f"GPUs of compute capability {', '.join(engine.targets) or '8.0 and later'} that the library supports"
    descriptions = {
        "none": f"only {engine.gpu}",
        "same-cc": f"GPUs of compute capability {engine.compute_capability}",
        "ampere+": "GPUs of compute capability 8.0 and later",
    }
    return descriptions[engine.hardware_compat]


def _settings(engine: Engine) -> list[str]:
    settings = [f"optimisation level {engine.opt_level}", f"TensorFloat-32 {'allowed' if engine.tf32 else 'off'}"]
    if engine.workspace_bytes is not None:
        settings.append(f"workspace of at most {engine.workspace_bytes:,} bytes")
    if engine.version_compat:
        settings.append("compatible with later versions")
    if engine.stripped:
        settings.append("without weights (read from the ONNX file)")
    if engine.refittable:
        settings.append("weights can be replaced (rexport refit)")
    if engine.sparse_weights:
        settings.append("kernels for 2:4 sparse weights allowed")
    if engine.aux_streams is not None:
        settings.append(f"at most {engine.aux_streams} additional streams")
    if engine.tiling != "none":
        settings.append(f"{engine.tiling} search for tilings")
    if engine.avg_timing is not None:
        settings.append(f"kernels timed by {engine.avg_timing} runs")
    return settings
