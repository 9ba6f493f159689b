"""An artifact behind KServe's own model server, by the checks that ``rexport serve`` passes as well."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.http

from runtimes import Artifact
from tests.exporter.command_line import environment
from tests.peers import peer
from tests.processes import default_interrupt
from tests.runtimes.serving.conformance import CHECKS, TRANSPORTS, Check, Target

pytestmark = pytest.mark.peers

PROGRAM = Path(__file__).with_name("kserve_server.py")
START_S = 90.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


@pytest.fixture(scope="module")
def target(onnx_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    python = peer("kserve") / "bin/python"
    http, grpc = free_ports(2)
    ports = ["--http_port", str(http), "--grpc_port", str(grpc)]
    log = tmp_path_factory.mktemp("kserve") / "log"
    with log.open("w") as errors, default_interrupt():
        process = subprocess.Popen(
            [python, PROGRAM, onnx_artifact.path, *ports],
            env=environment() | {"OMP_NUM_THREADS": "1"},
            stdout=errors,
            stderr=errors,
            preexec_fn=os.setpgrp,
        )
    try:
        wait_until_live(process, f"127.0.0.1:{http}", log)
        yield Target(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", onnx_artifact.path.stem, onnx_artifact)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_live(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    client = tritonclient.http.InferenceServerClient(address)
    deadline_s = time.monotonic() + START_S
    try:
        while time.monotonic() < deadline_s:
            assert process.poll() is None, log.read_text()
            try:
                if client.is_server_ready():
                    return
            except OSError:
                time.sleep(0.2)
    finally:
        client.close()
    raise AssertionError(log.read_text())


DEVIATIONS = {("an_unknown_output_is_refused", "grpc"): "KServe's gRPC answers with all outputs, whatever is asked for"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_kserve_conforms_with_an_artifact_behind_it(check: Check, transport: str, target: Target) -> None:
    if (check.__name__, transport) in DEVIATIONS:
        with pytest.raises(pytest.fail.Exception):
            check(target, TRANSPORTS[transport])
        return
    check(target, TRANSPORTS[transport])
