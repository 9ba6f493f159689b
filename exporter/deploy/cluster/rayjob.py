"""A RayJob of KubeRay that labels images: ``rexport label`` on a Ray cluster, which starts for it and ends with it."""

from __future__ import annotations

import posixpath
import shlex
from dataclasses import dataclass

from exporter.deploy.cluster.deployment import DATA, Deployment
from exporter.deploy.cluster.head import NOT_APPLIED, head_lines
from exporter.deploy.cluster.kubernetes import Fields, metadata
from exporter.deploy.cluster.ray_cluster import KUBERAY, Workers, ray_cluster
from exporter.deploy.cluster.yaml_text import yaml_text
from runtimes.errors import UsageError, quote
from runtimes.labelling.stores import CREDENTIALS, divide

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
        UsageError: A place is not one that all pods see, or the labels have the place of the images.
        BackendUnavailableError: PyYAML is not installed.
    """
    for place in (job.source, job.out):
        _check_shared(place, deployment)
    if _normal(job.source) == _normal(job.out):
        raise UsageError(
            f"the output folder {quote(job.out)} is the source", code="output-is-source", hint="choose another"
        )
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


def _normal(place: str) -> str:
    """Return a path or an address without ``.``, ``..``, a slash at its end, or the options of an object store.

    ``file:///data/x`` is the path ``/data/x``, as for ``rexport label``.
    """
    root, path = divide(place)
    if "://" in root:
        return f"{root}/{path.partition('?')[0]}".rstrip("/")
    return posixpath.normpath(root + path)


def _check_shared(place: str, deployment: Deployment) -> None:
    """Check that all pods see a place: it is in an object store, or below the folder of a volume.

    Raises:
        UsageError: It is not.
    """
    normal = _normal(place)
    mounted = deployment.claim is not None and (normal == str(DATA) or normal.startswith(f"{DATA}/"))
    if mounted or normal.partition("://")[0] in CREDENTIALS:
        return
    raise UsageError(
        f"{quote(place)!r} is neither in an object store nor on a volume, and not all pods see it",
        code="path-not-shared",
        hint=f"an address as s3://BUCKET/PATH, or --claim NAME and a path below {DATA}",
    )
