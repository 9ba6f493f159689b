"""Engines with the weights of another checkpoint, without another build."""

from __future__ import annotations

from pathlib import Path

from exporter.export_request import ExportListener, target_file
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets.rebuild import network_of
from exporter.targets.tensorrt_engine import EngineBuild, EngineRequest, read_onnx
from runtimes import Artifact
from runtimes.artifacts.manifest import Manifest
from runtimes.backends.tensorrt.build_settings import settings_of
from runtimes.backends.tensorrt.builder import BuiltEngine
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor, default_flavor
from runtimes.backends.tensorrt.refit import check_refittable, refit
from runtimes.errors import BackendUnavailableError, CompatibilityError, quote
from runtimes.escaping import shell_word
from runtimes.tensors import cuda


def refit_engine(
    engine: Path, onnx: Path, listener: ExportListener, out: str | None = None, force: bool = False
) -> Artifact:
    """Write a copy of an engine with the weights of an ONNX artifact, after the checks of a newly built engine.

    Args:
        engine: The engine, built with ``--refit``. It is not changed.
        onnx: The ONNX artifact of the same network in the same precision.
        listener: Receives the progress and notices.
        out: A file, or a folder if it exists or ends in a slash. ``None`` means the folder of the ONNX file.
        force: Whether existing files are replaced.

    Returns:
        The published engine.

    Raises:
        ArtifactError: A file is not of the right format, is damaged, or has no manifest.
        CompatibilityError: The files are of different networks, or the engine's weights cannot be replaced.
        CheckFailedError: The logits of the engine differ from those of the network. No engine is left.
        BackendUnavailableError: There is no GPU, or the library is missing.
        UsageError: The target exists.
    """
    old, parent = Artifact.read(engine), read_onnx(onnx)
    built = None if old.manifest is None else old.manifest.engine
    flavor = default_flavor() if built is None else FLAVORS[built.flavor]
    manifest = check_refittable(old, flavor)
    record = manifest.engine
    assert record is not None
    assert parent.manifest is not None
    _require_same_network(manifest, parent.manifest, onnx)
    missing = cuda.missing()
    if missing is not None:
        raise BackendUnavailableError(f"weights are replaced on a GPU: {missing}", code="refit-needs-gpu")
    order = EngineRequest(record.flavor, settings_of(record), out, force)
    name = parent.manifest.precision
    with target_file(out or f"{onnx.parent}/", f"{onnx.stem}.engine", force) as target:
        build = _Refit(old, parent, target, order, flavor, listener)
        return build.run(lambda: network_of(parent, listener), PrecisionSpec(name) if name in PRECISIONS else FP32)


def _require_same_network(engine: Manifest, onnx: Manifest, path: Path) -> None:
    """Raise CompatibilityError if the files differ in more than their weights."""
    for name in ("variant", "precision", "inputs", "outputs"):
        before, after = getattr(engine, name), getattr(onnx, name)
        if before != after:
            raise CompatibilityError(
                f"the ONNX file has another {name.removesuffix('s')} than the engine: {quote(_text(after))}, not "
                f"{quote(_text(before))}",
                code="refit-of-other-network",
                path=path,
                hint=f"rexport tensorrt {shell_word(path)} --refit builds an engine for it",
            )


def _text(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("name", "none"))
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Refit(EngineBuild):
    """The refit of one engine."""

    def __init__(
        self,
        old: Artifact,
        parent: Artifact,
        target: Path,
        order: EngineRequest,
        flavor: Flavor,
        listener: ExportListener,
    ) -> None:
        super().__init__(parent, target, order, flavor, listener)
        self._old = old

    def _build_engine(self) -> BuiltEngine:
        self.listener.step("replacing the weights")
        built = refit(self._old, self.parent.path, self.flavor, cuda.device(self.device.index))
        self.listener.notice(
            f"{self.flavor.title} {self.flavor.version()}: {len(built.plan):,} bytes with the weights of "
            f"{self.parent.path.name}, in {built.duration_s:.1f} s"
        )
        return built
