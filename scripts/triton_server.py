"""Starts the real Triton of the wheel ``nvidia-pytriton`` on loopback: ``python -m scripts.triton_server REPOSITORY``.

The wheel is in ``.peers/triton`` (``make peers``) and has one backend, Python's. Ctrl-C ends the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from exporter.commands import terminal
from runtimes.errors import BackendUnavailableError, CheckFailedError, quote

ROOT = Path(__file__).parents[1]

ENVIRONMENT = ROOT / ".peers" / "triton"
"""The environment that ``make peers`` makes of ``scripts/peers/triton.txt``."""

START_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0
POLL_S = 0.05

_WHERE = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'), sysconfig.get_python_version())"


@dataclass(frozen=True)
class TritonServer:
    """A running server: its process, the ports on 127.0.0.1, and the file that holds its log."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    metrics_port: int
    log: Path

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}"

    def metric(self, name: str) -> float:
        """The sum of a metric over all models, as ``nv_inference_count``."""
        address = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=START_LIMIT_S) as answer:
            rows = answer.read().decode().splitlines()
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith((f"{name} ", f"{name}{{")))

    def stop(self) -> int:
        """Sends SIGTERM, waits, and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_LIMIT_S)


@contextlib.contextmanager
def triton_server(
    repository: Path,
    options: Sequence[str] = (),
    environment: Path = ENVIRONMENT,
    *,
    packages: Path | None = None,
    ready: bool = True,
) -> Iterator[TritonServer]:
    """Runs a server in the block, and ends it afterwards.

    Args:
        repository: The model repository.
        options: Further options of ``tritonserver``.
        environment: The environment with the wheel.
        packages: The environment with what the models import; by default the same.
        ready: Whether to wait until the models are loaded; else until the server answers.

    Raises:
        BackendUnavailableError: The environment is not there.
        CheckFailedError: The server ended, or was not ready in time. The message ends with its last error.
    """
    with tempfile.TemporaryDirectory() as folder:
        ports = http_port, grpc_port, metrics_port = _free_ports()
        command = [*_command(environment, Path(folder)), f"--model-repository={repository}", *_addresses(ports)]
        log = Path(folder) / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *options],
                stdout=output,
                stderr=output,
                env=_variables(environment, packages),
                start_new_session=True,
            )
        server = TritonServer(process, http_port, grpc_port, metrics_port, log)
        try:
            _wait(server, "ready" if ready else "live")
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _packages(environment: Path) -> Path:
    found = sorted(environment.glob("lib/python3*/site-packages/pytriton/tritonserver"))
    if not found:
        raise BackendUnavailableError(
            "nvidia-pytriton is not there", code="triton-missing", path=environment, hint="make peers installs it"
        )
    return found[0].parents[1]


def _where(environment: Path) -> tuple[str, str]:
    """The folder of the environment's libpython, and the version of its Python, as ``3.11``."""
    answer = subprocess.run([environment / "bin" / "python", "-c", _WHERE], check=True, capture_output=True, text=True)
    folder, version = answer.stdout.split()
    return folder, version


def _command(environment: Path, folder: Path) -> list[str]:
    """The program and its folder of backends. Triton looks for the interpreter's program beside its library."""
    server = _packages(environment) / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    for file in (server / "backends" / "python").iterdir():
        (backend / file.name).symlink_to(file)
    stub = "triton_python_backend_stub"
    (backend / stub).symlink_to(server / "python_backend_stubs" / _where(environment)[1] / stub)
    return [str(server / "bin" / "tritonserver"), f"--backend-directory={backend.parent}"]


def _variables(environment: Path, packages: Path | None) -> dict[str, str]:
    """The environment's Python first in the path, for the models, and the libraries that the server needs."""
    libraries = f"{_where(environment)[0]}:{_packages(environment) / 'nvidia_pytriton.libs'}"
    paths = f"{(packages or environment) / 'bin'}:{os.environ['PATH']}"
    return os.environ | {"PATH": paths, "LD_LIBRARY_PATH": libraries, "PYTHONPATH": str(ROOT)}


def _free_ports() -> tuple[int, int, int]:
    with contextlib.ExitStack() as opened:
        first, second, third = (opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3))
        return first.getsockname()[1], second.getsockname()[1], third.getsockname()[1]


def _addresses(ports: Sequence[int]) -> list[str]:
    kinds = zip(("http", "grpc", "metrics"), ports, strict=True)
    return [option for kind, port in kinds for option in (f"--{kind}-address=127.0.0.1", f"--{kind}-port={port}")]


def _wait(server: TritonServer, state: str) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.http}/v2/health/{state}", timeout=START_LIMIT_S):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    code = server.process.poll()
    ended = f"was not {state} within {START_LIMIT_S:g} s" if code is None else f"ended with {code}"
    raise CheckFailedError(f"tritonserver {ended}: {_last_error(server.log)}", code="triton-not-ready")


_FAILURE = re.compile(
    r"failed to load '(.+?)' version (\d+): (?:Internal: )?(?:TritonModelException: )?(.+?)(?:\\n|\"$|$)"
)


def _last_error(log: Path) -> str:
    """The last error that Triton logged of a model, else its last line."""
    lines = log.read_text(errors="replace").splitlines()
    failures = [match for match in map(_FAILURE.search, lines) if match]
    if failures:
        return f"{failures[-1][1]} version {failures[-1][2]}: {failures[-1][3]}"
    return quote(lines[-1]) if lines else "no output"


@click.command()
@click.argument("repository", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("options", nargs=-1)
@click.option("--environment", type=click.Path(path_type=Path), default=ENVIRONMENT, help="Where the wheel is.")
def main(repository: Path, options: tuple[str, ...], environment: Path) -> None:
    """Serve REPOSITORY until Ctrl-C; OPTIONS, after --, go to tritonserver."""
    with triton_server(repository, options, environment) as server:
        click.echo(f"{server.http} {server.grpc} http://127.0.0.1:{server.metrics_port}/metrics")
        server.process.wait()


if __name__ == "__main__":
    terminal.run(main)
