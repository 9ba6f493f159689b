"""Models as an application of Ray Serve: replicas on the nodes of a Ray cluster, behind its proxies.

Each replica answers by the same application as ``rexport serve``. Ray Serve spreads requests over the replicas, starts
replicas in place of lost ones, and refuses requests with status 503 if too many wait. No other module here imports Ray.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from runtimes.errors import BackendUnavailableError, UsageError, quote
from runtimes.libraries import importing

if TYPE_CHECKING:
    from starlette.types import ASGIApp

DEPLOYMENT = "Replica"
"""The name of the replicas in Ray Serve."""

ONGOING = 64
"""The number of requests that a replica takes at once, so that they share batches."""

FINISH_S = 30.0
"""The seconds that a replica has to answer what it took, once it has to stop."""


@dataclass(frozen=True)
class ReplicaArguments:
    """The models of each replica. The fields are the arguments of an application in a configuration of Ray Serve.

    Attributes:
        artifacts: The model files, each as a path or as ``NAME=PATH``. All nodes need them at these paths.
        threads: The number of processors of a replica.
        backend: As for ``runtimes.open``.
        device: As for ``runtimes.open``.
        limits: Fields of ``ServingSettings`` that differ from their defaults.
    """

    artifacts: tuple[str, ...]
    threads: int = 1
    backend: str | None = None
    device: str | None = None
    limits: Mapping[str, float] | None = None


@dataclass(frozen=True)
class RayServeSettings:
    """How an application is deployed.

    Attributes:
        name: The name of the application in the cluster.
        host: The address that the proxies listen at.
        port: Their port.
        replicas: The number of replicas.
        gpus: The number of GPUs of each replica. A fraction lets several replicas share one.
        queue: The number of requests that wait at each proxy, at most. More are refused with status 503.
        every_node: Whether each node of the cluster has a proxy, and not the head node alone.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    gpus: float = 0
    queue: int = 256
    every_node: bool = False


def application(arguments: Mapping[str, Any]) -> Any:
    """Return an application of Ray Serve. A configuration names it as ``runtimes.serving.onray:application``.

    Args:
        arguments: The fields of ``ReplicaArguments``.

    Raises:
        UsageError: An argument is unknown.
        BackendUnavailableError: Ray Serve is not installed.
    """
    known = ReplicaArguments.__dataclass_fields__
    for name in arguments:
        if name not in known:
            raise UsageError(
                f"the application takes no argument {quote(name)!r}",
                code="application-argument-unknown",
                hint=f"it takes {', '.join(known)}",
            )
    return _deployment(ReplicaArguments(**{**arguments, "artifacts": tuple(arguments["artifacts"])})).bind()


def replica_app(arguments: Mapping[str, Any]) -> ASGIApp:
    """Open the models of a replica and return its application. Ray Serve calls this in the process of the replica.

    Raises:
        RexportError: As for ``ServedModel.open``.
    """
    from runtimes.serving.app import create_app
    from runtimes.serving.model import ServedModel
    from runtimes.serving.settings import ServingSettings

    order = ReplicaArguments(**arguments)
    models = []
    for artifact in order.artifacts:
        name, equals, path = artifact.partition("=")
        models.append(
            ServedModel.open(
                path if equals else artifact, name if equals else None, order.backend, order.device, order.threads
            )
        )
    return create_app(models, ServingSettings(**dict(order.limits or {})))  # type: ignore[arg-type]


@contextlib.contextmanager
def deploy(replica: ReplicaArguments, settings: RayServeSettings) -> Generator[Callable[[], str], None, None]:
    """Deploy an application on the cluster that this process is connected to, and delete it in the end.

    Args:
        replica: The models of each replica.
        settings: The replicas, their proxies and their queue.

    Yields:
        A function that returns the state of the application in Ray Serve's words, for example ``RUNNING``.

    Raises:
        BackendUnavailableError: Ray Serve is not installed, or the replicas do not start.
    """
    serve = _import_serve()
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    location = "EveryNode" if settings.every_node else "HeadOnly"
    serve.start(proxy_location=location, http_options={"host": settings.host, "port": settings.port})
    deployment = _deployment(replica).options(
        num_replicas=settings.replicas,
        max_queued_requests=settings.queue,
        ray_actor_options={"num_cpus": replica.threads, "num_gpus": settings.gpus},
    )
    try:
        serve.run(deployment.bind(), name=settings.name, route_prefix="/", logging_config={"log_level": "ERROR"})
        yield lambda: str(serve.status().applications[settings.name].status.value)
    except RuntimeError as error:
        raise BackendUnavailableError(
            f"Ray Serve cannot start the replicas: {quote(error)}",
            code="replicas-not-started",
            hint="ray status shows the resources of the cluster",
        ) from error
    finally:
        serve.delete(settings.name)


def _deployment(replica: ReplicaArguments) -> Any:
    """Return the replicas as a deployment of Ray Serve, which imports rexport by name on each node."""
    serve = _import_serve()
    options = {"max_ongoing_requests": ONGOING, "graceful_shutdown_timeout_s": FINISH_S}
    fields = asdict(replica)

    def build() -> ASGIApp:  # Ray Serve recognises functions alone as builders
        return replica_app(fields)

    app = serve.ingress(build)()
    return serve.deployment(name=DEPLOYMENT, ray_actor_options={"num_cpus": replica.threads}, **options)(app)


def _import_serve() -> Any:
    """Import Ray Serve.

    Raises:
        BackendUnavailableError: It is not installed. The extra ``ray`` has Ray alone.
    """
    with importing("ray.serve", "ray"):
        from ray import serve
    return serve
