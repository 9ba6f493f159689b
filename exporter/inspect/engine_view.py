"""An engine for people: what it was built for, and its layers as its own inspector tells them."""

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
    """An engine's layers in their order, and how well its residual blocks were fused.

    Attributes:
        layers: as they run the batch that the first profile is tuned for.
        blocks: residual blocks that the layers' names tell of.
        fused_blocks: those whose addition runs inside a convolution's layer.
        arithmetic: of the weighted layers, in words.
    """

    layers: tuple[EngineLayer, ...]
    blocks: int
    fused_blocks: int
    arithmetic: str


def view(artifact: Artifact) -> EngineView:
    """What the engine's inspector tells; the engine is deserialised for it, after its gates.

    Raises:
        BackendUnavailableError: its library or a GPU is missing.
        CompatibilityError: it is for another GPU or another version of the library.
        RexportError: as ``runtimes.backends.tensorrt.open.inspect_layers``.
    """
    return summarise_layers(inspect_layers(artifact))


def summarise_layers(layers: Sequence[EngineLayer]) -> EngineView:
    """The layers, summed up."""
    where = places([" ".join((row.layer.name, *row.layer.nodes)) for row in layers])
    blocks = {place.block for place in where if place.stage not in (STEM, HEAD)} if _names_nodes(layers) else set()
    fused = {
        place.block
        for place, row in zip(where, layers, strict=True)
        if place.block in blocks and row.layer.weighted and any(_is_addition(name) for name in row.layer.nodes)
    }
    return EngineView(tuple(layers), len(blocks), len(fused), summarise_precisions(row.layer for row in layers))


def _names_nodes(layers: Sequence[EngineLayer]) -> bool:
    return any(row.layer.nodes for row in layers)


def _is_addition(node: str) -> bool:
    return node.rpartition("/")[2].partition("_")[0] == "Add"


def layer_lines(found: EngineView) -> list[str]:
    """A line of sums, then one a layer: its arithmetic, how many nodes it stands for, its name and its kernel."""
    kinds = Counter(row.layer.operator for row in found.layers)
    fused = f", {found.fused_blocks} of {found.blocks} blocks with their addition fused" if found.blocks else ""
    told = ", ".join(f"{count} {quote(kind)}" for kind, count in kinds.most_common())
    lines = [f"{len(found.layers)} layers ({told}){fused}; weighted layers in {found.arithmetic}"]
    width = max((len(row.layer.precision) for row in found.layers), default=0)
    for row in found.layers:
        kernel = f"  [{quote(row.tactic)}]" if row.tactic else ""
        lines.append(f"{row.layer.precision:<{width}}  {len(row.layer.nodes):>2}  {quote(row.title)}{kernel}")
    return lines


def engine_facts(manifest: Manifest, engine: Engine) -> dict[str, str]:
    """What a manifest tells of an engine, a line each fact."""
    flavor = FLAVORS[engine.flavor]
    built = f"on {engine.gpu}, driver of CUDA {engine.driver}" if engine.gpu else "on a machine without a GPU"
    return {
        "engine": f"{flavor.title} {engine.version}, built {built}",
        "runs on": _runs_on(engine),
        "takes": "; ".join(map(str, engine.profiles)),
        "built with": "; ".join(_settings(engine)),
        "built from": f"{engine.onnx}, sha256 {manifest.parent}",
    }


def _runs_on(engine: Engine) -> str:
    if engine.flavor == "rtx":
        return f"GPUs of compute capability {', '.join(engine.targets) or '8.0 and later'} that the library supports"
    others = {
        "none": f"{engine.gpu} alone",
        "same-cc": f"GPUs of compute capability {engine.compute_capability}",
        "ampere+": "GPUs of compute capability 8.0 and later",
    }
    return others[engine.hardware_compat]


def _settings(engine: Engine) -> list[str]:
    words = [f"optimisation level {engine.opt_level}", f"TensorFloat-32 {'allowed' if engine.tf32 else 'off'}"]
    if engine.workspace_bytes is not None:
        words.append(f"workspace of {engine.workspace_bytes:,} bytes at most")
    if engine.version_compat:
        words.append("for later versions too")
    if engine.stripped:
        words.append("without weights, which the ONNX file beside it has")
    return words
