"""The command that makes an artifact again, for the hints of errors about one that is damaged or does not fit here."""

from __future__ import annotations

import shlex
from pathlib import Path

from runtimes.artifacts.manifest import DEFAULT_OPT_LEVEL, Engine, Manifest
from runtimes.errors import quote


def remedy(path: Path, manifest: Manifest | None) -> str:
    """What to do about a file whose bytes are wrong: an engine's command in full, which its manifest still tells."""
    if manifest is None or manifest.engine is None:
        return "export it again"
    return f"build it again: {rebuilding(path, manifest, manifest.engine)}"


def rebuilding(path: Path, manifest: Manifest, engine: Engine) -> str:
    """The command that builds the engine at ``path`` again, as ``engine`` says, from the ONNX file beside it."""
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
    words += [word for target in engine.targets for word in ("--compute-capability", target)]
    return shlex.join([*words, "-o", str(path), "--force"])


def _plain(name: str) -> str:
    """The last part of a name that a manifest gives, which is foreign text; it is shown and never opened."""
    return quote(name.rsplit("/", 1)[-1]) or "ARTIFACT.onnx"
