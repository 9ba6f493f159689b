"""A Compose file: the server of rexport on one machine, built from the Dockerfile beside it."""

from __future__ import annotations

from exporter.deploy.cluster.deployment import Deployment
from exporter.deploy.cluster.head import head_lines
from exporter.deploy.cluster.kubernetes import GRACE_S, Fields
from exporter.deploy.cluster.yaml_text import yaml_text

PORT = 8000
"""The port of the server in the container."""


def compose_file(deployment: Deployment, port: int) -> str:
    """Return the YAML of a Compose file with one service.

    Args:
        deployment: The artifact and its container.
        port: The port on this machine, on the loopback address.

    Raises:
        BackendUnavailableError: PyYAML is not installed.
    """
    head = head_lines(
        "A Compose file. The Dockerfile beside it comes from: rexport manifests dockerfile",
        deployment,
        "Files like this one are checked with a parser of the Compose Specification. No container was started.",
        "Start: docker compose up --build --detach --wait    Stop: docker compose down",
    )
    service: Fields = {
        "build": {"context": "."},
        "image": deployment.image,
        "init": True,
        "restart": "unless-stopped",
        "ports": [f"127.0.0.1:{port}:{PORT}"],
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": f"{GRACE_S}s",
        "deploy": {"resources": _resources(deployment)},
    }
    return yaml_text(head, {"name": deployment.name, "services": {deployment.name: service}})


def _resources(deployment: Deployment) -> Fields:
    resources = deployment.resources
    limits = {"cpus": str(resources.cpus), "memory": f"{resources.memory_mebibytes}M"}
    if not resources.gpus:
        return {"limits": limits}
    device = {"driver": "nvidia", "count": resources.gpus, "capabilities": ["gpu"]}
    return {"limits": limits, "reservations": {"devices": [device]}}
