"""Models on Ray Serve: ``rexport serve --ray local`` with two replicas, and what is refused before Ray starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import runtimes
from exporter.cli import main
from runtimes import Artifact
from runtimes.errors import UsageError
from runtimes.serving.onray import application
from tests.exporter.command_line import environment, here
from tests.peers import peer
from tests.processes import default_interrupt
from tests.refusals import error_codes, refuses
from tests.servers import Address

METADATA = "Metadata-Version: 2.1\nName: rexport\nVersion: 0.1.0\n"
LIMIT_S = 120


@dataclass(frozen=True)
class RayServer:
    process: subprocess.Popen[str]
    address: Address
    stderr: Path


@pytest.fixture(scope="module")
def server(onnx_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayServer]:
    """Two replicas of one processor each; two requests may wait."""
    python, folder = peer("rayserve") / "bin/python", tmp_path_factory.mktemp("onray")
    installed = folder / "site" / "rexport-0.1.0.dist-info"  # the peer has rexport by its import path alone
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(METADATA)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--ray", "local", "--workers", "2", "--threads", "1", "--queue", "2", "--port", str(port)]
    variables = environment()
    variables["PYTHONPATH"] += f":{installed.parent}"
    stderr = folder / "stderr"
    with stderr.open("w") as errors, default_interrupt():
        process = subprocess.Popen(
            [python, "-m", "exporter.cli", "serve", f"net={onnx_artifact.path}", *options],
            env=variables, stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=os.setpgrp,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line == f"http://127.0.0.1:{port}", stderr.read_text()
        yield RayServer(process, Address("127.0.0.1", port), stderr)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def request(pixels: np.ndarray) -> tuple[bytes, dict[str, str]]:
    content = pixels.tobytes()
    size = {"binary_data_size": len(content)}
    tensor = {"name": "input", "datatype": "FP32", "shape": pixels.shape, "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + content, {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.peers
def test_replicas_give_the_bits_of_runtimes(server: RayServer, onnx_artifact: Artifact) -> None:
    pixels = onnx_artifact.vectors().inputs
    with runtimes.open(onnx_artifact.path, threads=1) as runtime:
        expected = runtime.infer({"input": pixels})["logits"].tobytes()
    body, headers = request(pixels)
    for _ in range(6):
        reply = server.address.post("/v2/models/net/infer", body, headers)
        assert reply.status == 200
        assert reply.body[-len(expected) :] == expected


@pytest.mark.peers
def test_too_many_requests_are_refused_and_none_is_lost(server: RayServer) -> None:
    body, headers = request(np.zeros((64, 3, 32, 32), np.float32))
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(server.address.post("/v2/models/net/infer", body, headers).status)

    threads = [threading.Thread(target=ask) for _ in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(statuses) == 300
    assert set(statuses) == {200, 503}
    assert server.address.get("/v2/health/ready").status == 200


@pytest.mark.peers
def test_a_hostile_body_is_refused_by_a_replica(server: RayServer) -> None:
    assert server.address.post("/v1/label", bytes(11 << 20)).status == 413
    assert server.address.post("/v1/label", b"no image").code == "image-format-unknown"
    assert server.address.get("/v2/models/none").status == 404


@pytest.mark.peers
def test_a_signal_ends_the_server_and_its_cluster(server: RayServer) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(LIMIT_S) == 0
    assert server.process.stdout is not None
    assert server.process.stdout.read() == ""
    assert "Traceback" not in server.stderr.read_text()
    with pytest.raises(ConnectionRefusedError):
        server.address.connect()


def test_what_ray_serve_cannot_do_is_refused_before_it_starts(onnx_artifact: Artifact) -> None:
    done = here(main, "serve", onnx_artifact.path, "--ray", "local")
    assert (done.code, error_codes(done.stderr)) == (5, ["ray-serve-missing"])
    assert "ray[serve]" in done.stderr


def test_an_unknown_argument_of_the_application_is_refused() -> None:
    with refuses(UsageError, "application-argument-unknown", "artifact", "artifacts"):
        application({"artifact": "/models/resnet20.onnx"})
