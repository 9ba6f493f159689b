"""``rexport serve`` as a process: clients of others, workers that die or are replaced, and ends without loss."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import runtimes
from runtimes import Artifact
from tests.conftest import FakeFactory
from tests.processes import wait_for
from tests.refusals import error_codes
from tests.runtimes.serving.conftest import png_of
from tests.samples import SCRIPT
from tests.servers import LIMIT_S, Address, serve_command, serve_process

SLOW = replace(SCRIPT, delays_s=(0.002,))


class Load:
    """Clients that send one request after the other, each over a new or a kept connection, until they are refused."""

    def __init__(self, address: Address, clients: int) -> None:
        self.statuses: list[int] = []
        self.lost: list[Exception] = []
        self._address = address
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        image = png_of(number)
        while not self._ending.is_set():
            try:
                self.statuses.append(self._address.post("/v1/label", image).status)
            except ConnectionRefusedError:
                return
            except Exception as error:
                self.lost.append(error)

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(LIMIT_S)


@contextmanager
def load(address: Address, clients: int = 4) -> Iterator[Load]:
    running = Load(address, clients)
    try:
        yield running
    finally:
        running.end()


def test_clients_of_triton_get_the_outputs_bit_by_bit(onnx_artifact: Artifact, tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    with runtimes.open(onnx_artifact.path, threads=1) as runtime:
        expected = runtime.infer({"input": array})["logits"]
    with serve_process(tmp_path, onnx_artifact.path, "--threads", "1", "--grpc-port", "0", "--drain", "0") as server:
        address = f"{server.address.host}:{server.address.port}"
        with tritonclient.http.InferenceServerClient(address) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("resnet20")
            for binary in (True, False):
                tensor = tritonclient.http.InferInput("input", array.shape, "FP32")
                tensor.set_data_from_numpy(array, binary_data=binary)
                output = tritonclient.http.InferRequestedOutput("logits", binary_data=binary)
                answer = client.infer("resnet20", [tensor], outputs=[output]).as_numpy("logits")
                np.testing.assert_array_equal(answer, expected)
        assert server.grpc is not None
        _check_grpc(server.grpc, array, expected)
        assert server.end() == 0
        assert server.events("stopped")
        assert {line["status"] for line in server.events("request")} == {200, 404}


def _check_grpc(address: str, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]], expected: object) -> None:
    with tritonclient.grpc.InferenceServerClient(address) as client:
        assert client.is_server_ready()
        assert client.get_model_metadata("resnet20").inputs[0].shape == [-1, 3, 32, 32]
        tensor = tritonclient.grpc.InferInput("input", array.shape, "FP32")
        tensor.set_data_from_numpy(array)
        answer = client.infer("resnet20", [tensor], request_id="7")
        np.testing.assert_array_equal(answer.as_numpy("logits"), expected)
        assert answer.get_response().id == "7"
        with pytest.raises(tritonclient.grpc.InferenceServerException) as caught:
            client.infer("other", [tensor])
        assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_workers_are_replaced_and_stopped_without_loss(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    path = fake_artifact(SLOW).path
    arguments = (f"m={path}", "--backend", "fake", "--workers", "2", "--drain", "0.3")
    with serve_process(tmp_path, *arguments) as server:
        before = set(server.workers())
        assert len(before) == 2
        with load(server.address) as running:
            server.signal(signal.SIGHUP)
            wait_for(lambda: server.events("workers-replaced"))
            wait_for(lambda: before.isdisjoint(server.workers()))
            text = server.address.get("/metrics").body.decode()
            count = re.search(r'rexport_requests_total\{.*route="/v1/label",status="200"\} (\S+)', text)
            assert count is not None
            assert 0 < float(count[1]) <= len(running.statuses) + 4  # of all workers, those that ended included
            server.signal(signal.SIGTERM)
            assert server.process.wait(LIMIT_S) == 0
        assert running.lost == []
        assert set(running.statuses) == {200}


def test_a_worker_that_dies_is_replaced(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    with serve_process(tmp_path, f"m={fake_artifact().path}", "--backend", "fake", "--drain", "0") as server:
        (pid,) = server.workers()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: server.events("worker-started"))
        (event,) = server.events("worker-ended")
        assert event["pid"] == pid
        assert "SIGKILL" in event["reason"]
        assert server.address.post("/v1/label", png_of(1)).status == 200
        assert server.end() == 0


DYING = """
import os, signal, sys
if "runtimes.serving.worker" in sys.orig_argv and os.path.exists(os.environ["DIE_IF"]):
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A worker that dies before it reads its order, as for lack of memory, while a file exists."""


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file because of which workers die. It is not there yet."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([f"{tmp_path}/hook", os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("DIE_IF", f"{tmp_path}/die")
    return tmp_path / "die"


def test_a_worker_that_dies_before_its_order_is_an_error(fake_artifact: FakeFactory, dying: Path) -> None:
    dying.touch()
    assert refused(f"m={fake_artifact().path}", "--backend", "fake", "--port", "0") == (6, ["worker-ended-early"])


def test_a_worker_that_dies_before_its_order_is_replaced(
    fake_artifact: FakeFactory, tmp_path: Path, dying: Path
) -> None:
    with serve_process(tmp_path, f"m={fake_artifact().path}", "--backend", "fake", "--drain", "0") as server:
        dying.touch()
        (pid,) = server.workers()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: server.events("worker-not-started"))
        assert server.events("worker-not-started")[0]["code"] == "worker-ended-early"
        dying.unlink()
        wait_for(lambda: server.events("worker-started"))
        assert server.address.post("/v1/label", png_of(1)).status == 200
        assert server.end() == 0


def test_workers_end_with_their_supervisor(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    with serve_process(tmp_path, f"m={fake_artifact().path}", "--backend", "fake") as server:
        (pid,) = server.workers()
        server.signal(signal.SIGKILL)
        server.process.wait(LIMIT_S)
        wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_a_second_signal_stops_at_once(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    with serve_process(tmp_path, f"m={fake_artifact().path}", "--backend", "fake", "--drain", "3600") as server:
        server.signal(signal.SIGTERM)
        wait_for(lambda: server.events("draining"))
        wait_for(lambda: server.address.get("/v2/health/ready").status == 503)
        assert server.address.post("/v1/label", png_of(1)).status == 200
        server.signal(signal.SIGTERM)
        assert server.process.wait(LIMIT_S) == 128 + signal.SIGTERM


def refused(*arguments: str | Path) -> tuple[int, list[str]]:
    done = subprocess.run(serve_command(*arguments), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.stdout == ""
    return done.returncode, error_codes(done.stderr)


def test_what_cannot_be_served_is_refused(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    path = fake_artifact().path
    assert refused(tmp_path / "none.onnx", "--port", "0") == (6, ["file-access-failed"])
    assert refused(path, f"scripted={path}") == (2, ["model-name-repeated"])
    assert refused(f"a b={path}") == (2, ["model-name-invalid"])
    assert refused(path, "--max-bytes", "much") == (2, ["size-invalid"])


def test_a_port_in_use_is_refused(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    with serve_process(tmp_path, f"m={fake_artifact().path}", "--backend", "fake", "--drain", "0") as server:
        assert refused(fake_artifact().path, "--port", str(server.address.port)) == (6, ["address-unusable"])
