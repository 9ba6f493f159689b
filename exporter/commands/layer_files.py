"""The files of ``rexport inspect`` for the other tools of TensorRT."""

from __future__ import annotations

from pathlib import Path


def export_layer_files(engine: Path, layer_info: Path | None, profile: Path | None) -> None:
    """Write what trtexec writes about the layers of an engine to the files that are given.

    Raises:
        UsageError: The file is not an engine.
        BackendUnavailableError: The library of the engine or a GPU is missing.
        ResourceError: A file cannot be written.
    """
    if layer_info is None and profile is None:
        return
    from runtimes import Artifact, files
    from runtimes.backends.tensorrt import trtexec_files

    artifact = Artifact.read(engine)
    for target, describe in ((layer_info, trtexec_files.describe_layers), (profile, trtexec_files.profile_layers)):
        if target is not None:
            files.require_folder(target.parent)
            content = describe(artifact)
            with files.write_atomically(target) as temporary:
                temporary.write_text(content, encoding="utf-8")
