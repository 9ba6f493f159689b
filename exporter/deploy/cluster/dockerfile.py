"""A Dockerfile: an image with an artifact, the versions of the libraries that are installed here, and no privileges."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass

from exporter.deploy.cluster.deployment import MODELS, Deployment, require_image
from exporter.deploy.cluster.head import head_lines
from exporter.deploy.cluster.kubernetes import DRAIN_S, USER
from exporter.deploy.cluster.pins import direct_requirements, requirement_pins
from exporter.deploy.cluster.ray_cluster import RAY_VERSION
from exporter.deploy.cluster.yaml_text import comment
from runtimes import Artifact

PORT = 8000
"""The port of the server in the container."""

DEBIAN = "bookworm"
"""The release of Debian of the base image."""

GPU_LIBRARY = "onnxruntime-gpu"
"""The package that takes the place of the one for processors."""

RAY_HAS = frozenset({"fastapi", "numpy", "prometheus-client", "pyarrow", "ray", "tritonclient", "uvicorn"})
"""Libraries that the images of Ray have in versions of their own, or that Ray Serve does without."""

_HEALTH = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/v2/health/ready', timeout=2).read()"


@dataclass(frozen=True)
class ImageSettings:
    """How an image is built.

    Attributes:
        gpu: Whether it runs on an NVIDIA GPU.
        ray: Whether it is for the nodes of a Ray cluster, which start Ray in place of the server.
        base: The base image, or ``None`` for the one that suits.

    Raises:
        UsageError: The base image is not a reference.
    """

    gpu: bool = False
    ray: bool = False
    base: str | None = None

    def __post_init__(self) -> None:
        if self.base is not None:
            require_image(self.base)


def dockerfile(deployment: Deployment, settings: ImageSettings) -> str:
    """Return the text of a Dockerfile.

    Args:
        deployment: The artifact and its containers.
        settings: How the image is built.

    Raises:
        BackendUnavailableError: A library that the image needs is not installed here, so that no version is known.
    """
    base = _base(settings) if settings.base is None else settings.base
    wheel = wheel_name()
    extras = _extras(deployment.artifact, settings)
    pins = direct_requirements(extras, RAY_HAS) if settings.ray else requirement_pins(extras)
    if settings.gpu:
        pins = tuple(_for_gpu(pin) for pin in pins)
    steps = [
        f"FROM {base}",
        _environment(settings),
        _install(wheel, pins),
        *(() if settings.ray else (f"RUN useradd --uid {USER} --create-home --shell /usr/sbin/nologin rexport",)),
        _copy(deployment.artifact),
        f"USER {USER}",
        *(() if settings.ray else _start_server(deployment)),
    ]
    return comment(_head(deployment, settings, wheel)) + "\n" + "\n\n".join(steps) + "\n"


def wheel_name() -> str:
    """Return the file name of rexport's wheel, which lies beside the Dockerfile when the image is built."""
    from importlib.metadata import version

    return f"rexport-{version('rexport')}-py3-none-any.whl"


def artifact_files(artifact: Artifact) -> list[str]:
    """Return the names of the artifact's files: the model, its manifest, the test vectors and external weights."""
    from runtimes.artifacts.artifact import manifest_path

    manifest = artifact.manifest
    if manifest is None:
        return [artifact.path.name]
    records = [record for record in (manifest.vectors, *manifest.external) if record is not None]
    names = [artifact.sibling(record.name, record.sha256).name for record in records]
    return [artifact.path.name, manifest_path(artifact.path).name, *names]


def _head(deployment: Deployment, settings: ImageSettings, wheel: str) -> list[str]:
    files = ", ".join(artifact_files(deployment.artifact))
    lines = [
        f"Beside it when it is built: {files}, and {wheel}, from:",
        "    pip wheel --no-deps --wheel-dir . PATH/TO/REXPORT",
        f"Build: docker build --tag {deployment.image} .",
        "Files like this one are checked with hadolint. No image was built.",
        "The versions are those that were installed where it was written.",
        "To pin the base image by its digest: --base IMAGE@sha256:DIGEST",
    ]
    if settings.gpu:
        lines.append(
            "The CUDA libraries come with onnxruntime-gpu, in the versions that it asks for. Not tried on a GPU."
        )
    if settings.ray:
        lines.append("It has no command and no health check, because KubeRay gives both.")
    kind = "nodes of a Ray cluster" if settings.ray else "rexport serve"
    return list(head_lines(f"A Dockerfile for {kind}.", deployment, *lines))


def _base(settings: ImageSettings) -> str:
    major, minor, _ = platform.python_version_tuple()
    if settings.ray:
        return f"rayproject/ray:{RAY_VERSION}-py{major}{minor}" + ("-gpu" if settings.gpu else "")
    return f"python:{platform.python_version()}-slim-{DEBIAN}"


def _extras(artifact: Artifact, settings: ImageSettings) -> tuple[str, ...]:
    """Return the extras of rexport that the image needs; the library is the one for the format of the artifact."""
    engine = None if artifact.manifest is None else artifact.manifest.engine
    if engine is not None:
        library = "tensorrt" if engine.flavor == "tensorrt" else "tensorrt-rtx"
    else:
        library = "cpu" if artifact.format.name == "onnx" else "export"
    return (library, "images", "serve", *(("label",) if settings.ray else ()))


def _for_gpu(pin: str) -> str:
    name, _, version = pin.partition("==")
    return f"{GPU_LIBRARY}[cuda,cudnn]=={version}" if name == "onnxruntime" else pin


def _environment(settings: ImageSettings) -> str:
    lines = ["ENV PYTHONUNBUFFERED=1"]
    if settings.gpu:
        lines += ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    return " \\\n    ".join(lines)


def _install(wheel: str, pins: tuple[str, ...]) -> str:
    quoted = [f'"{pin}"' if "[" in pin else pin for pin in pins]
    install = " \\\n    ".join(["RUN pip install --no-cache-dir", *quoted])
    return f"COPY {wheel} /tmp/\n{install} \\\n    && pip install --no-cache-dir --no-deps /tmp/{wheel}"


def _copy(artifact: Artifact) -> str:
    return "COPY " + json.dumps([*artifact_files(artifact), f"{MODELS}/"])


def _start_server(deployment: Deployment) -> tuple[str, ...]:
    probe = json.dumps(["python", "-c", _HEALTH.format(port=PORT)])
    command = ["serve", deployment.model_path, "--host", "0.0.0.0", "--port", str(PORT), "--drain", str(DRAIN_S)]
    return (
        f"EXPOSE {PORT}",
        f"HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \\\n    CMD {probe}",
        'STOPSIGNAL SIGTERM\nENTRYPOINT ["rexport"]\nCMD ' + json.dumps(command),
    )
