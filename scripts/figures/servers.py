"""Figures of servers: an artifact behind KServe gives the same bits, and hostile requests cost little.

``kserve`` needs the environment that ``make peers`` makes. ``serve-hostile`` sends ``rexport serve`` what
wants to exhaust it, and measures the slowest refusal and the growth of its memory.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from runtimes import Artifact
from scripts.figures.setting import SILENT, Figure, FigureSettings

ROOT = Path(__file__).parents[2]
KSERVE = ROOT / ".peers/kserve"
START_S = 120.0
REFUSAL_S = 15.0
"""The slowest refusal allowed: the head of a request may take ten seconds, and the body of this server two."""

GROWTH_MEBIBYTES = 64.0
BODY_S = 2.0
BOMB_SIDE = 20_000


def measure_kserve(settings: FigureSettings) -> Iterator[Figure]:
    """How many logits differ from those of ``runtimes``, over HTTP with JSON, HTTP with bytes, and gRPC."""
    artifact = _artifact(settings)
    batches = [_images(artifact, images) for images in (1, 3, 7, 32) for _ in range(settings.rounds)]
    if not (KSERVE / ".complete").exists():
        yield Figure("KServe gives the bits of runtimes", "not measured", "0 differ", False, ("make peers makes it",))
        return
    with _kserve(artifact, settings.folder) as addresses:
        yield _parity("KServe", addresses, artifact, batches)


def measure_hostile(settings: FigureSettings) -> Iterator[Figure]:
    """The slowest refusal of hostile requests, and what they add to the largest memory of the server."""
    artifact = _artifact(settings)
    with _rexport(artifact, settings.folder, "--timeout", str(BODY_S)) as (http, process):
        host, _, port = http.rpartition(":")
        address = (host, int(port))
        _ask(address, _post(b"warm"))
        before = _peak_mebibytes(process.pid)
        times = {name: [_seconds(address, request) for _ in range(3)] for name, request in _hostile().items()}
        grown = _peak_mebibytes(process.pid) - before
        alive = process.poll() is None and _ask(address, b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
    slowest = max(times, key=lambda name: max(times[name]))
    value = f"{max(times[slowest]):.1f} s, {slowest}"
    notes = tuple(f"{name}: {max(samples):.2f} s" for name, samples in times.items())
    holds = bool(alive) and max(times[slowest]) <= REFUSAL_S
    yield Figure("the slowest refusal of a hostile request", value, f"<= {REFUSAL_S:.0f} s", holds, notes)
    bound = f"<= {GROWTH_MEBIBYTES:.0f} MiB"
    yield Figure("growth of the largest memory", f"{grown:.0f} MiB", bound, grown <= GROWTH_MEBIBYTES)


def _artifact(settings: FigureSettings) -> Artifact:
    path = settings.folder / "resnet20.onnx"
    if path.exists():
        return Artifact.read(path)
    return onnx_file.export(ExportRequest(variant("resnet20"), str(path), weights="bundled"), SILENT)


def _images(artifact: Artifact, images: int) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(images)
    return random.standard_normal((images, *artifact.vectors().inputs.shape[1:]), np.float32)


def _parity(name: str, addresses: tuple[str, str], artifact: Artifact, batches: list[np.ndarray[Any, Any]]) -> Figure:
    import tritonclient.grpc
    import tritonclient.http

    differing, compared = dict.fromkeys(("HTTP JSON", "HTTP binary", "gRPC"), 0), 0
    http = tritonclient.http.InferenceServerClient(addresses[0])
    grpc = tritonclient.grpc.InferenceServerClient(addresses[1])
    with runtimes.open(artifact.path, threads=1) as runtime:
        for pixels in batches:
            expected = runtime.infer({"input": pixels})["logits"].view(np.uint32)
            compared += expected.size
            for transport in differing:
                found = _infer(transport, http if transport.startswith("HTTP") else grpc, artifact.path.stem, pixels)
                differing[transport] += int((found.view(np.uint32) != expected).sum())
    http.close()
    grpc.close()
    value = ", ".join(f"{transport} {count} of {compared:,}" for transport, count in differing.items())
    return Figure(
        f"logits of {name} that differ from those of runtimes", value, "0 differ", not any(differing.values())
    )


def _infer(transport: str, client: Any, model: str, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import tritonclient.grpc
    import tritonclient.http

    library = tritonclient.http if transport.startswith("HTTP") else tritonclient.grpc
    tensor, binary, options = library.InferInput("input", list(pixels.shape), "FP32"), transport != "HTTP JSON", {}
    if library is tritonclient.http:
        tensor.set_data_from_numpy(pixels, binary_data=binary)
        output = library.InferRequestedOutput("logits", binary_data=binary)
        options = {} if binary else {"headers": {"Content-Type": "application/json"}}
    else:
        tensor.set_data_from_numpy(pixels)
        output = library.InferRequestedOutput("logits")
    logits: np.ndarray[Any, Any] = client.infer(model, [tensor], outputs=[output], **options).as_numpy("logits")
    return logits


@contextmanager
def _rexport(artifact: Artifact, folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "exporter.cli", "serve", str(artifact.path), "--port", "0"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--threads", "1", "--drain", "0", *options], stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip().removeprefix("http://"), process
    finally:
        _end(process)


@contextmanager
def _kserve(artifact: Artifact, folder: Path) -> Iterator[tuple[str, str]]:
    """KServe's model server at the loopback address, by the example of the documentation."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ports.append(listener.getsockname()[1])
    program = ROOT / "tests/runtimes/serving/kserve_server.py"
    names = ["--http_port", str(ports[0]), "--grpc_port", str(ports[1])]
    with (folder / "kserve.log").open("w") as log:
        process = subprocess.Popen(
            [KSERVE / "bin/python", program, artifact.path, *names],
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=log, stderr=log, text=True,
        )  # fmt: skip
    try:
        for port in ports:
            _wait_for(port)
        yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    finally:
        _end(process)


def _wait_for(port: int) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens at port {port}")


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class _Hostile:
    """A request: what is sent first, and what is sent again and again until the server has enough."""

    first: bytes
    again: bytes = b""
    pause_s: float = 0.0


def _post(body: bytes, path: str = "/v1/label", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode() + body


def _hostile() -> dict[str, _Hostile]:
    packer = zlib.compressobj(9)
    row = bytes(1 + BOMB_SIDE // 8)
    bomb = b"".join(packer.compress(row) for _ in range(BOMB_SIDE)) + packer.flush()
    chunks = b"POST /v1/label HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    infer = "/v2/models/resnet20/infer"
    tensor = b'{"name":"input","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":1152921504606846976}}'
    size = b'{"inputs":[' + tensor + b"]}"
    return {
        "PNG bomb of 400 megapixels": _Hostile(_post(_png(BOMB_SIDE, 1, bomb))),
        "PNG header of 65,535 x 65,535": _Hostile(_post(_png(65_535, 8, zlib.compress(b"\0")))),
        "JSON of 100,000 lists": _Hostile(_post(b"[" * 100_000, infer)),
        "binary_data_size of 1 EiB": _Hostile(_post(size, infer)),
        "body of 1 GiB by its length": _Hostile(_post(b"", length=1 << 30), bytes(1 << 16)),
        "body of 1 GiB in chunks": _Hostile(chunks, b"10000\r\n" + bytes(1 << 16) + b"\r\n"),
        "body of a byte each 0.1 s": _Hostile(_post(b"", length=100_000), b"a", 0.1),
        "head of a byte each 0.1 s": _Hostile(b"POST /v1/label HTTP/1.1\r\nX-A: ", b"a", 0.1),
    }


def _png(side: int, depth: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _seconds(address: tuple[str, int], request: _Hostile) -> float:
    """From the first byte to the answer, or to the end of the connection."""
    began_s = time.monotonic()
    with socket.create_connection(address, 10) as connection:
        connection.sendall(request.first)
        connection.settimeout(request.pause_s or 30)
        while time.monotonic() - began_s < 2 * REFUSAL_S:
            if request.again and not _send(connection, request.again):
                break
            if request.pause_s == 0 and request.again:
                continue
            try:
                connection.recv(1)
                break
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
    return time.monotonic() - began_s


def _send(connection: socket.socket, content: bytes) -> bool:
    """Whether the other side still takes bytes."""
    try:
        connection.sendall(content)
    except OSError:
        return False
    return True


def _ask(address: tuple[str, int], request: bytes) -> bool:
    with socket.create_connection(address, 10) as connection:
        connection.settimeout(20)
        connection.sendall(request)
        return connection.recv(12).startswith(b"HTTP/1.1 ")


def _peak_mebibytes(supervisor: int) -> float:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in children]
    return max(int(text.partition("VmHWM:")[2].split()[0]) for text in texts) / 1024
