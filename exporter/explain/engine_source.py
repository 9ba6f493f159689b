"""The ONNX file behind an engine, and engines of changed copies of its graph."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.explain.engine_deviation import OpenEngine
from exporter.precision.table import PRECISIONS
from runtimes import Artifact, Description, Runtime, open_artifact
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt import engine_manifest
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor, compute_capabilities
from runtimes.errors import CompatibilityError, quote
from runtimes.tensors import cuda

if TYPE_CHECKING:
    import onnx

EXACT_LIMIT = 1e-3
"""The limit of the deviation of an engine in float32, whose kernels add in another order than a CPU's."""


def onnx_of(artifact: Artifact) -> Artifact:
    """Return the ONNX file with the layers of an artifact: itself, or the file that an engine was built from.

    Args:
        artifact: The artifact.

    Raises:
        CompatibilityError: The format hides its layers, or the ONNX file of the engine is missing or another one.
        ArtifactError: The ONNX file of the engine is damaged.
    """
    if artifact.format.name == "onnx":
        return artifact
    record = None if artifact.manifest is None else artifact.manifest.engine
    if artifact.manifest is None or record is None:
        raise CompatibilityError(
            f"the layers of a .{artifact.format.name} file cannot be inspected", code="layers-hidden"
        )
    path = artifact.sibling(record.onnx, artifact.manifest.parent)
    if not path.is_file():
        raise CompatibilityError(
            f"the layers of an engine are those of its ONNX file, and {quote(path.name)} is not in the same folder",
            code="engine-source-missing",
            path=artifact.path,
        )
    source = Artifact.read(path)
    source.check_digest()
    if source.manifest is None or source.manifest.sha256 != artifact.manifest.parent:
        raise CompatibilityError(
            f"the engine was not built from this {quote(path.name)}",
            code="engine-source-changed",
            path=artifact.path,
            hint="build the engine again",
        )
    return source


def flavor_of(artifact: Artifact, description: Description) -> Flavor:
    """Return the library of an engine, or the one through which an ONNX file ran.

    Args:
        artifact: The artifact.
        description: What ran.

    Raises:
        CompatibilityError: No engine ran.
    """
    for flavor in FLAVORS.values():
        if flavor.backend == description.backend:
            return flavor
    raise CompatibilityError(
        f"{quote(artifact.path.name)} ran on {description.backend}, which builds no engine",
        code="no-engine-ran",
        hint=f"--backend {' or '.join(flavor.backend for flavor in FLAVORS.values())}",
    )


def limit_of(precision: str) -> float:
    """Return the largest deviation that counts as rounding: the limit of the precision's gate."""
    row = PRECISIONS.get(precision)
    return EXACT_LIMIT if row is None or row.bounds is None else row.bounds.error


@contextmanager
def engine_opener(source: Artifact, flavor: Flavor, batch: int, device_index: int) -> Iterator[OpenEngine]:
    """Yield a function that builds an engine from a graph and opens it. Its files are deleted at the end.

    Args:
        source: The ONNX file, which decides about TensorFloat-32.
        flavor: The library.
        batch: The largest number of images in one call.
        device_index: The number of the GPU.
    """
    device = cuda.device(device_index)
    known = compute_capabilities(flavor)
    targets = (device.compute_capability,) if device.compute_capability in known else ()
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(1_000_000))

        def open_engine(graph: onnx.ModelProto) -> Runtime:
            path = Path(folder, f"{next(numbers)}.onnx")
            path.write_bytes(graph.SerializeToString())
            fixed = bool(graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value)
            profiles = () if fixed else (Profile(1, batch, batch),)
            settings = Settings(profiles=profiles, tf32=source.allows_tf32, targets=targets)
            built = build(path, settings, flavor)
            plan = path.with_suffix(".engine")
            plan.write_bytes(built.plan)
            manifest = engine_manifest.manifest(Artifact.read(path), plan, built, settings, flavor, device)
            return open_artifact(Artifact(plan, FORMATS["engine"], manifest), flavor.backend, f"cuda:{device_index}")

        yield open_engine
