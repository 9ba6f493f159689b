"""The connection to a Ray cluster. No other module imports Ray.

``--ray local`` starts a cluster of this machine for one command. It listens on the loopback address alone, and asks for
a token that only this command knows.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.errors import BackendUnavailableError, UsageError, quote
from runtimes.labelling.rayaddress import RayAddress
from runtimes.libraries import importing, missing_library
from runtimes.processors import usable_processors

OBJECT_STORE_BYTES = 96 << 20
"""Shared memory of a local cluster. Ray takes 30 % of the memory by default; numbers of shards need almost none."""

_LONGEST_TEMPORARY = 10
"""The longest path of a folder for temporary files in characters. Sockets lie below it, whose paths may have 107."""

_FOLDER = re.compile(r"rexport-ray-(?P<pid>\d+)-[a-z0-9_]{8}")

_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Keeps Ray on the loopback address, on Linux too. Without it, the ports of a local cluster are open to the network."""

_TOKEN = secrets.token_hex(32)
"""The token of all local clusters of this process: Ray reads a token once."""


@dataclass(frozen=True)
class RaySettings:
    """The cluster of the workers, their number and their GPUs.

    Attributes:
        address: The address of the cluster.
        workers: The number of workers. ``None`` means as many as the cluster has processors or GPUs for.
        gpus_per_worker: The GPUs of each worker. A fraction lets several workers share one.
    """

    address: RayAddress
    workers: int | None = None
    gpus_per_worker: float = 0


def check_cluster(address: RayAddress) -> None:
    """Check what can be checked without Ray's start, which takes seconds.

    Raises:
        UsageError: The cluster is reached over the network and asks for no token.
        BackendUnavailableError: Ray is not installed, or nothing answers at the address.
    """
    if reason := missing_library("ray", "ray"):
        raise BackendUnavailableError(reason.sentence, code=reason.code)
    address.check_authentication()
    address.check_reachable()


@contextlib.contextmanager
def connect(settings: RaySettings, threads: int) -> Generator[tuple[Any, int], None, None]:
    """Yield Ray, connected to a cluster, and the number of workers. The end disconnects what was connected here.

    Args:
        settings: The cluster and the workers.
        threads: The number of processors of each worker.
    """
    address = settings.address
    check_cluster(address)
    with ExitStack() as stack:
        if address.local:
            token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN", _TOKEN)}
            stack.enter_context(_variables(_LOOPBACK | token))
        elif address.is_on_loopback_alone():
            stack.enter_context(_variables(_LOOPBACK))
        ray = _import_ray()
        if not ray.is_initialized():
            arguments = {}
            if address.local:
                workers = settings.workers or max(1, usable_processors() // threads)
                arguments = {"num_cpus": workers * threads, **stack.enter_context(_private_folder())}
            stack.callback(ray.shutdown)
            with _signals_kept():
                _init(ray, address, **arguments)
            if not address.local:
                RayAddress.parse(ray.get_runtime_context().gcs_address).check_authentication()
        yield ray, settings.workers or _fitting_workers(ray, settings, threads)


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Generator[None, None, None]:
    """Set environment variables in the ``with`` block, and restore them at its end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _private_folder() -> Generator[dict[str, Any], None, None]:
    """Yield the arguments of a local cluster, with a folder for its logs and sockets that is removed at the end.

    Folders of commands that were killed are removed, too.
    """
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _LONGEST_TEMPORARY:
        parent = Path("/tmp")
    for name in os.listdir(parent):
        if (match := _FOLDER.fullmatch(name)) and not Path("/proc", match["pid"]).exists():
            shutil.rmtree(parent / name, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"rexport-ray-{os.getpid()}-", dir=parent)
    try:
        yield {"_temp_dir": folder, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _signals_kept() -> Generator[None, None, None]:
    """Restore the handler of SIGTERM, which Ray replaces, at the end of the ``with`` block."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _import_ray() -> Any:
    """Import Ray. It reads its environment variables while it is imported.

    Raises:
        BackendUnavailableError: Ray cannot be imported.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning about CUDA_VISIBLE_DEVICES
    with importing("ray", "ray"):
        import ray
    return ray


def _init(ray: Any, address: RayAddress, **arguments: Any) -> None:
    """Connect to a cluster or start one, without Ray's output."""
    try:
        ray.init(address=str(address), log_to_driver=False, logging_level="error", **arguments)
    except ray.exceptions.AuthenticationError as error:
        raise UsageError(
            f"the Ray cluster asks for a token: {quote(str(error).split('. ')[0])}",
            code="ray-token-missing",
            hint="set RAY_AUTH_TOKEN_PATH to the file with the token of the cluster",
        ) from error
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        what = "start" if address.local else "connect to"
        reason = quote(error)
        if not address.local and isinstance(error, ConnectionError):
            reason = (
                "none runs on this machine, and RAY_ADDRESS is not set"
                if address.host is None
                else f"{address} answers, but not to Ray with the token that is set here"
            )
        raise BackendUnavailableError(
            f"cannot {what} a Ray cluster: {reason}",
            code="ray-not-connected",
            hint="ray start --head starts a cluster, which --ray auto finds; --ray local needs none",
        ) from error


def _fitting_workers(ray: Any, settings: RaySettings, threads: int) -> int:
    """Return how many workers the cluster has room for, at least 1."""
    there = ray.cluster_resources()
    rooms = [there.get("CPU", 0) / threads]
    if settings.gpus_per_worker:
        rooms.append(there.get("GPU", 0) / settings.gpus_per_worker)
    return max(1, int(min(rooms)))
