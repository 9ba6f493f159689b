"""Hints for errors about damaged or unsuitable artifacts: how to export or build the artifact again."""

from __future__ import annotations

from pathlib import Path

from runtimes.artifacts.manifest import DEFAULT_OPT_LEVEL, DEFAULT_RECIPE, Calibration, Engine, Manifest
from runtimes.escaping import MAX_QUOTED, printable, shell_word

EXPORT_AGAIN = "export the model again with rexport; pip install 'rexport[export]' installs the exporter"
"""The hint for a damaged model file."""


def rebuild_hint(path: Path, manifest: Manifest | None) -> str:
    """Return the hint for a damaged file at ``path``: for an engine, the whole command from its ``manifest``."""
    if manifest is None or manifest.engine is None:
        options = "" if manifest is None or manifest.calibration is None else recipe_options(manifest.calibration)
        return f"{EXPORT_AGAIN}; {options} chooses its int8 recipe" if options else EXPORT_AGAIN
    return f"build the engine again: {rebuild_command(path, manifest, manifest.engine)}"


def rebuild_command(path: Path, manifest: Manifest, engine: Engine) -> str:
    """Return the command that builds an engine again from the ONNX file in the same folder.

    Args:
        path: The engine file.
        manifest: The manifest of the engine.
        engine: The settings of the new engine.
    """
    words = ["rexport", "tensorrt", str(path.with_name(_plain(engine.onnx))), "--flavor", engine.flavor]
    if manifest.inputs and manifest.inputs[0].fixed_batch is None:
        words += [word for row in engine.profiles for word in ("--profile", f"{row.least}:{row.best}:{row.most}")]
    if engine.opt_level != DEFAULT_OPT_LEVEL:
        words += ["--opt-level", str(engine.opt_level)]
    if engine.workspace_bytes is not None:
        words += ["--workspace", str(engine.workspace_bytes)]
    if engine.hardware_compat != "none":
        words += ["--hardware-compat", engine.hardware_compat]
    words += ["--version-compat"] if engine.version_compat else []
    words += ["--strip-weights"] if engine.stripped else []
    words += ["--refit"] if engine.refittable else []
    words += ["--sparse-weights"] if engine.sparse_weights else []
    words += [] if engine.aux_streams is None else ["--aux-streams", str(engine.aux_streams)]
    words += [] if engine.tiling == "none" else ["--tiling", engine.tiling]
    words += [] if engine.avg_timing is None else ["--avg-timing", str(engine.avg_timing)]
    words += [word for target in engine.targets for word in ("--compute-capability", target)]
    return " ".join(map(shell_word, [*words, "-o", path, "--force"]))


def recipe_options(calibration: Calibration) -> str:
    """Return the options of ``rexport onnx`` that make an int8 graph by the same recipe, empty for the default recipe.

    Args:
        calibration: The calibration of the graph.
    """
    if calibration.recipe == DEFAULT_RECIPE and not calibration.float_layers:
        return ""
    layers = [word for name in calibration.float_layers for word in ("--float-layer", name)]
    return " ".join(map(shell_word, ["--recipe", calibration.recipe, *layers]))


def _plain(name: str) -> str:
    """Return the last part of a file name from a manifest. The name is only shown and never opened."""
    return printable(name.rsplit("/", 1)[-1], MAX_QUOTED) or "ARTIFACT.onnx"
