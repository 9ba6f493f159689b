"""The Ray cluster that a RayJob or a RayService starts: a head without work of its own, and equal workers."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.deploy.cluster.deployment import Deployment, Resources
from exporter.deploy.cluster.kubernetes import Container, Fields, container_fields, pod_fields

RAY_VERSION = "2.60.0"
"""The version of Ray in the images that rexport writes Dockerfiles for."""

KUBERAY = "Needs KubeRay 1.5.1 or newer: authOptions makes a token, without which anyone who reaches Ray runs code."
"""Said in the head of each file."""

HEAD = Resources(cpus=2, memory="4Gi")
"""The resources of the head, which runs the services of Ray and the driver of a job."""

NODE_DRAIN_S = 45
"""For how long a node that is to stop finishes its work: less than ``GRACE_S``, after which it is killed."""


@dataclass(frozen=True)
class Workers:
    """The workers of a Ray cluster.

    Attributes:
        least: The smallest number of workers.
        most: The largest number; where it is above ``least``, Ray starts and stops workers as they are needed.
    """

    least: int
    most: int


def ray_cluster(deployment: Deployment, workers: Workers) -> Fields:
    """Return the specification of a Ray cluster whose requests need a token, and whose nodes drain before they stop.

    Args:
        deployment: The artifact and the containers of the workers.
        workers: How many workers there are.
    """
    environment = (("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", str(NODE_DRAIN_S)),)
    head = container_fields(deployment, Container("ray-head", (), environment, resources=HEAD))
    worker = container_fields(deployment, Container("ray-worker", (), environment))
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": workers.most > workers.least,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": {"spec": pod_fields(deployment, [head])},
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": workers.least,
                "minReplicas": workers.least,
                "maxReplicas": workers.most,
                "rayStartParams": {"num-cpus": str(deployment.resources.cpus)},
                "template": {"spec": pod_fields(deployment, [worker])},
            }
        ],
    }
