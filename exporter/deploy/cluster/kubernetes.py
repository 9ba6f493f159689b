"""Parts of Kubernetes that several kinds share: metadata, containers, resources and security contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.deploy.cluster.deployment import DATA, Deployment, Resources

Fields = dict[str, object]
"""An object of a Kubernetes resource."""

USER = 1000
"""The user and group of the containers, as in the Dockerfile that rexport writes and in the images of Ray."""

DRAIN_S = 10
"""For how long a server that is to stop still takes requests, so that balancers notice that it is not ready."""

GRACE_S = 60
"""After how many seconds Kubernetes kills a container that it asked to stop: longer than the server drains."""


@dataclass(frozen=True)
class Container:
    """A container of a deployment: the fields in which it differs from the others.

    Attributes:
        name: The name of the container.
        arguments: The arguments of the image's entry point; none keeps those of the image.
        environment: Names and values of environment variables.
        port: The port that it serves, or ``None``.
        resources: What it asks for; ``None`` means that of the deployment.
    """

    name: str
    arguments: Sequence[str] = ()
    environment: tuple[tuple[str, str], ...] = ()
    port: int | None = None
    resources: Resources | None = None


def metadata(deployment: Deployment) -> Fields:
    """Return the metadata: the name, the recommended labels, and the digest of the model file as an annotation."""
    return {
        "name": deployment.name,
        "labels": {"app.kubernetes.io/name": deployment.name, "app.kubernetes.io/managed-by": "rexport"},
        "annotations": {"rexport/model-sha256": deployment.digest},
    }


def container_fields(deployment: Deployment, container: Container) -> Fields:
    """Return a container. It runs without privileges, and limits equal requests.

    Args:
        deployment: The image, the resources, the secret and the volume.
        container: The other fields.
    """
    fields: Fields = {"name": container.name, "image": deployment.image}
    if container.arguments:
        # Kubernetes puts variables in place of $(NAME), and one dollar sign in place of two.
        fields["args"] = [argument.replace("$", "$$") for argument in container.arguments]
    if container.port is not None:
        fields["ports"] = [{"name": "http", "containerPort": container.port, "protocol": "TCP"}]
    if container.environment:
        fields["env"] = [{"name": name, "value": value} for name, value in container.environment]
    if deployment.secret is not None:
        fields["envFrom"] = [{"secretRef": {"name": deployment.secret}}]
    if deployment.claim is not None:
        fields["volumeMounts"] = [{"name": "data", "mountPath": str(DATA)}]
    limits = resource_limits(container.resources or deployment.resources)
    fields["resources"] = {"requests": dict(limits), "limits": limits}
    fields["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return fields


def resource_limits(resources: Resources) -> Fields:
    """Return the quantities by their names."""
    limits: Fields = {"cpu": str(resources.cpus), "memory": resources.memory}
    if resources.gpus:
        limits["nvidia.com/gpu"] = str(resources.gpus)
    return limits


def pod_fields(deployment: Deployment, containers: Sequence[Fields]) -> Fields:
    """Return the specification of a pod with these containers and the volume of the deployment."""
    fields: Fields = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": list(containers),
    }
    if deployment.claim is not None:
        fields["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": deployment.claim}}]
    return fields
