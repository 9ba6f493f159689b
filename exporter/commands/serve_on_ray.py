"""``rexport serve --ray``: the models as an application of Ray Serve, for as long as the command runs."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from runtimes.errors import BackendUnavailableError, ResourceError, UsageError

if TYPE_CHECKING:
    from runtimes.serving.worker import ModelSource

WATCH_S = 2.0
"""The seconds between two looks at the state of the application."""

LOST = ("DEPLOY_FAILED", "NOT_STARTED")
"""The states from which an application does not recover."""


def serve_on_ray(
    sources: tuple[ModelSource, ...], options: dict[str, Any], announce: Callable[[list[str], tuple[str, ...]], None]
) -> int:
    """Serves the models until SIGTERM or Ctrl-C, and returns the exit code. A second signal ends it at once."""
    from runtimes.labelling.rayaddress import RayAddress
    from runtimes.labelling.raycluster import RaySettings, connect
    from runtimes.serving.onray import RayServeSettings, deploy

    _require_serve()
    if options["grpc_port"] is not None:
        raise UsageError("Ray Serve answers over HTTP alone", code="grpc-on-ray", hint="leave out --grpc-port")
    replica = _arguments(sources, options)
    address = RayAddress.parse(options["ray"])
    settings = RayServeSettings(
        name=sources[0].name,
        host=options["host"],
        port=options["port"],
        replicas=options["workers"],
        gpus=options["gpus_per_worker"],
        queue=options["queue"],
        every_node=not address.local,
    )
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    with connect(RaySettings(address, options["workers"], options["gpus_per_worker"]), replica.threads):
        _queue_signals(signals)
        with deploy(replica, settings) as state:
            announce([f"http://{options['host']}:{options['port']}"], tuple(source.name for source in sources))
            while not _is_signalled(signals):
                if (now := state()) in LOST:
                    raise ResourceError(f"Ray Serve says that the application is {now}", code="replicas-lost")
    return 0


def _require_serve() -> None:
    """Says how Ray Serve is installed, which no extra brings beside the libraries of this environment."""
    import importlib.util

    found = importlib.util.find_spec("ray") is not None and importlib.util.find_spec("aiohttp_cors") is not None
    if not found:
        raise BackendUnavailableError(
            "Ray Serve is not installed",
            code="ray-serve-missing",
            hint="pip install 'ray[serve]' 'rexport[cpu,images]' into an environment of its own",
        )


def _arguments(sources: tuple[ModelSource, ...], options: dict[str, Any]) -> Any:
    """What each replica serves: paths from the root, as the replicas have another working folder."""
    from runtimes import Artifact
    from runtimes.backends.tensorrt.build_settings import parse_size
    from runtimes.serving.onray import ReplicaArguments
    from runtimes.serving.settings import ServingSettings

    for source in sources:
        Artifact.read(source.path)  # a wrong file is refused before Ray starts
    limits = {
        "max_batch": options["max_batch"],
        "delay_s": options["delay"] / 1e3,
        "queue": options["queue"],
        "timeout_s": options["timeout"],
        "max_bytes": parse_size(options["max_bytes"]),
        "max_pixels": options["max_pixels"],
    }
    ServingSettings(**limits)
    artifacts = tuple(f"{source.name}={os.path.abspath(source.path)}" for source in sources)  # noqa: PTH100
    return ReplicaArguments(artifacts, options["threads"] or 1, options["backend"], options["device"], limits)


def _queue_signals(signals: queue.SimpleQueue[int]) -> None:
    """Puts the first signal into a queue, to which a signal handler may write at any moment; a second one ends all."""
    received: list[int] = []

    def take(number: int, _: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        signals.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, take)


def _is_signalled(signals: queue.SimpleQueue[int]) -> bool:
    """Whether a signal comes within ``WATCH_S``."""
    try:
        signals.get(timeout=WATCH_S)
    except queue.Empty:
        return False
    return True
