"""A RayJob of KubeRay that labels images: ``rexport label`` on a Ray cluster, which starts for it and ends with it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from exporter.deploy.cluster.deployment import DATA, Deployment
from exporter.deploy.cluster.head import NOT_APPLIED, head_lines
from exporter.deploy.cluster.kubernetes import Fields, metadata
from exporter.deploy.cluster.ray_cluster import KUBERAY, Workers, ray_cluster
from exporter.deploy.cluster.yaml_text import yaml_text
from runtimes.errors import UsageError, quote

KEPT_S = 600
"""For how long the pods of a finished job stay, so that its log can be read."""

RETRIES = 3
"""How often KubeRay starts the job again. Each start resumes where the last one ended."""


@dataclass(frozen=True)
class LabelJob:
    """The images of a job, and the place of their labels.

    Attributes:
        source: The images, as for ``rexport label``.
        out: The folder of the labels, as for ``rexport label``. All pods must see it.
        workers: The number of workers, one on each node.
    """

    source: str
    out: str
    workers: int


def ray_job(deployment: Deployment, job: LabelJob) -> str:
    """Return the YAML of a RayJob.

    Args:
        deployment: The artifact and the containers of the workers.
        job: The images, the labels and the workers.

    Raises:
        UsageError: A path is on the disk of a single pod.
        BackendUnavailableError: PyYAML is not installed.
    """
    for place in (job.source, job.out):
        _check_shared(place, deployment)
    head = head_lines(
        "A RayJob of KubeRay that runs rexport label.",
        deployment,
        "Checked in files like this one: pods with the JSON schemas of Kubernetes 1.37, the rest with the fields of",
        "KubeRay 1.6.",
        NOT_APPLIED,
        KUBERAY,
        f"Apply: kubectl apply -f FILE    Follow: kubectl get rayjob {deployment.name}",
        "A job that ended early resumes when it is applied again after: kubectl delete -f FILE",
    )
    document: Fields = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata(deployment),
        "spec": {
            "entrypoint": _entrypoint(deployment, job),
            "submissionMode": "K8sJobMode",
            "backoffLimit": RETRIES,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_S,
            "rayClusterSpec": ray_cluster(deployment, Workers(job.workers, job.workers)),
        },
    }
    return yaml_text(head, document)


def _entrypoint(deployment: Deployment, job: LabelJob) -> str:
    resources = deployment.resources
    words = ["rexport", "label", job.source, "--artifact", deployment.model_path, "--out", job.out, "--ray", "auto"]
    words += ["--workers", str(job.workers), "--threads", str(resources.cpus)]
    if resources.gpus:
        words += ["--gpus-per-worker", str(resources.gpus)]
    return shlex.join(words)


def _check_shared(place: str, deployment: Deployment) -> None:
    mounted = deployment.claim is not None and (place == str(DATA) or place.startswith(f"{DATA}/"))
    if "://" in place or mounted:
        return
    raise UsageError(
        f"{quote(place)!r} is on the disk of a single pod, and the other pods do not see it",
        code="path-not-shared",
        hint=f"an address as s3://BUCKET/PATH, or --claim NAME and a path below {DATA}",
    )
