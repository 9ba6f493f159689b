"""An InferenceService of KServe: the server of rexport as a custom predictor, or KServe's Triton with a repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from exporter.deploy.cluster.deployment import Deployment
from exporter.deploy.cluster.head import NOT_APPLIED, head_lines
from exporter.deploy.cluster.kubernetes import (
    DRAIN_S,
    Container,
    Fields,
    container_fields,
    metadata,
    pod_fields,
    resource_limits,
)
from exporter.deploy.cluster.yaml_text import yaml_text
from runtimes.errors import UsageError, quote

Predictor = Literal["rexport", "triton"]
"""Which server runs in KServe."""

PORT = 8080
"""The port that KServe sends requests to."""

MOUNTED = PurePosixPath("/mnt/models")
"""The folder of what KServe fetches from a storage URI."""

_URI = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+")


@dataclass(frozen=True)
class KServeSettings:
    """The settings of an InferenceService.

    Attributes:
        predictor: The server.
        storage_uri: Where KServe fetches the artifact or the Triton repository; ``None`` for an artifact in the image.
        least: The smallest number of replicas.
        most: The largest number of replicas.
        max_batch: The largest number of images that the server runs at once, or ``None`` for its default.

    Raises:
        UsageError: The storage URI has no scheme, or has spaces or line breaks.
    """

    predictor: Predictor = "rexport"
    storage_uri: str | None = None
    least: int = 1
    most: int = 1
    max_batch: int | None = None

    def __post_init__(self) -> None:
        if self.storage_uri is not None and _URI.fullmatch(self.storage_uri) is None:
            raise UsageError(
                f"{quote(self.storage_uri)!r} is not an address",
                code="storage-uri-unreadable",
                hint="for example --storage-uri s3://BUCKET/PATH",
            )


def inference_service(deployment: Deployment, settings: KServeSettings) -> str:
    """Return the YAML of an InferenceService.

    Args:
        deployment: The artifact and its containers.
        settings: The server, its replicas and its model.

    Raises:
        UsageError: Triton is asked for without the address of a repository.
        BackendUnavailableError: PyYAML is not installed.
    """
    predictor = _triton(deployment, settings) if settings.predictor == "triton" else _server(deployment, settings)
    head = head_lines(
        "An InferenceService of KServe.",
        deployment,
        "Files like this one are checked with the models of kserve 0.21 and the JSON schemas of Kubernetes 1.37.",
        NOT_APPLIED,
        "Apply: kubectl apply -f FILE",
    )
    document: Fields = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata(deployment),
        "spec": {"predictor": {"minReplicas": settings.least, "maxReplicas": settings.most, **predictor}},
    }
    return yaml_text(head, document)


def _triton(deployment: Deployment, settings: KServeSettings) -> Fields:
    if settings.storage_uri is None:
        raise UsageError(
            "KServe's Triton needs the address of a model repository",
            code="repository-address-missing",
            hint="rexport triton writes a repository; name its address by --storage-uri s3://BUCKET/PATH",
        )
    limits = resource_limits(deployment.resources)
    model: Fields = {
        "modelFormat": {"name": "triton"},
        "protocolVersion": "v2",
        "storageUri": settings.storage_uri,
        "resources": {"requests": dict(limits), "limits": limits},
    }
    return {"model": model}


def _server(deployment: Deployment, settings: KServeSettings) -> Fields:
    fetched = settings.storage_uri is not None
    path = str(MOUNTED / deployment.artifact.path.name) if fetched else deployment.model_path
    arguments = ["serve", path, "--host", "0.0.0.0", "--port", str(PORT), "--drain", str(DRAIN_S)]
    if settings.max_batch is not None:
        arguments += ["--max-batch", str(settings.max_batch)]
    container = Container(
        "kserve-container",
        arguments,
        (("STORAGE_URI", settings.storage_uri),) if settings.storage_uri is not None else (),
        PORT,
    )
    fields = container_fields(deployment, container)
    fields["startupProbe"] = _probe("ready", 60)
    fields["readinessProbe"] = _probe("ready", 3)
    fields["livenessProbe"] = _probe("live", 3)
    return pod_fields(deployment, [fields])


def _probe(health: str, failures: int) -> Fields:
    return {
        "httpGet": {"path": f"/v2/health/{health}", "port": PORT},
        "periodSeconds": 5,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
