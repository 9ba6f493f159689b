"""A RayService of KubeRay: the server of rexport as a Ray Serve application with replicas on several nodes."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.deploy.cluster.deployment import Deployment
from exporter.deploy.cluster.head import NOT_APPLIED, head_lines
from exporter.deploy.cluster.kubernetes import Fields, metadata
from exporter.deploy.cluster.ray_cluster import KUBERAY, Workers, ray_cluster
from exporter.deploy.cluster.yaml_text import yaml_text
from runtimes.serving.onray import DEPLOYMENT, FINISH_S, ONGOING

PORT = 8000
"""The port of Ray Serve's proxies."""

APPLICATION = "runtimes.serving.onray:application"
"""The builder of the application, which Ray Serve imports in each replica."""


@dataclass(frozen=True)
class Replicas:
    """The replicas of a Ray Serve application.

    Attributes:
        least: The smallest number of replicas.
        most: The largest number. Ray Serve starts and stops replicas between the two with the load.
        queue: How many requests wait for one proxy at most. More are refused with 503.
    """

    least: int
    most: int
    queue: int


def ray_service(deployment: Deployment, replicas: Replicas) -> str:
    """Return the YAML of a RayService.

    Args:
        deployment: The artifact and the containers of the replicas.
        replicas: How many there are, and how many requests wait.

    Raises:
        BackendUnavailableError: PyYAML is not installed.
    """
    head = head_lines(
        "A RayService of KubeRay.",
        deployment,
        "Checked in files like this one: serveConfigV2 with Ray Serve 2.60, pods with the JSON schemas of",
        "Kubernetes 1.37, the rest with the fields of KubeRay 1.6.",
        NOT_APPLIED,
        KUBERAY,
        f"Apply: kubectl apply -f FILE    Address: service {deployment.name}-serve-svc, port {PORT}",
    )
    document: Fields = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": metadata(deployment),
        "spec": {
            "serveConfigV2": yaml_text((), serve_config(deployment, replicas)),
            "rayClusterConfig": ray_cluster(deployment, Workers(replicas.least, replicas.most)),
        },
    }
    return yaml_text(head, document)


def serve_config(deployment: Deployment, replicas: Replicas) -> Fields:
    """Return the configuration of Ray Serve: one application that holds the artifact.

    Args:
        deployment: The artifact and the resources of a replica.
        replicas: How many there are, and how many requests wait.
    """
    resources = deployment.resources
    actor: Fields = {"num_cpus": resources.cpus}
    if resources.gpus:
        actor["num_gpus"] = resources.gpus
    replica: Fields = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": ONGOING,
        "max_queued_requests": replicas.queue,
        "graceful_shutdown_timeout_s": FINISH_S,
        "ray_actor_options": actor,
    }
    if replicas.most > replicas.least:
        replica["autoscaling_config"] = {
            "min_replicas": replicas.least,
            "max_replicas": replicas.most,
            "target_ongoing_requests": ONGOING // 2,
        }
    else:
        replica["num_replicas"] = replicas.least
    application: Fields = {
        "name": deployment.name,
        "route_prefix": "/",
        "import_path": APPLICATION,
        "args": {"artifacts": [deployment.model_path], "threads": resources.cpus},
        "deployments": [replica],
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": PORT},
        "applications": [application],
    }
