"""Requests that want a server to hang, to fall, or to use memory without a bound.

Each of them is refused in bounded time and memory, and the server then gives the same answer as before.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes import Artifact
from tests.servers import ServeProcess, serve_process

MAX_BYTES = 1 << 20
TIMEOUT_S = 1.5
SOON_S = 15.0
"""In which every refusal comes, on a machine that other tests keep busy as well."""

GROWTH_MEBIBYTES = 64
"""By which the largest memory of the process may grow over all requests of this file."""

INFER = "/v2/models/resnet20/infer"
BINARY = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def server(onnx_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    limits = ("--max-bytes", str(MAX_BYTES), "--timeout", str(TIMEOUT_S), "--drain", "0", "--threads", "1")
    with serve_process(tmp_path_factory.mktemp("hostile"), f"resnet20={onnx_artifact.path}", *limits) as server:
        yield server
        assert server.end() == 0


def ask(
    server: ServeProcess, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    reply = server.address.call(method, path, body, headers)
    return reply.status, reply.body


def connect(server: ServeProcess) -> socket.socket:
    connection = server.address.connect()
    connection.settimeout(SOON_S)
    return connection


def peak_mebibytes(server: ServeProcess) -> float:
    """The largest memory that a worker had."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in server.workers()]
    return max(int(text.partition("VmHWM:")[2].split()[0]) for text in texts) / 1024


@pytest.fixture(scope="module")
def sound(server: ServeProcess, onnx_artifact: Artifact) -> tuple[bytes, dict[str, str], bytes]:
    """A request, its headers, and its answer before anything hostile came."""
    pixels = onnx_artifact.vectors().inputs[:1]
    body, headers = binary_request({"shape": list(pixels.shape)}, pixels.tobytes())
    status, answer = ask(server, "POST", INFER, body, headers)
    assert status == 200, answer
    return body, headers, answer


@pytest.fixture(autouse=True)
def _unharmed(server: ServeProcess, sound: tuple[bytes, dict[str, str], bytes]) -> Iterator[None]:
    """Each test leaves the same processes with about the same memory, which give the same answer."""
    workers, before, said = server.workers(), peak_mebibytes(server), len(server.stderr)
    began_s = time.monotonic()
    yield
    assert time.monotonic() - began_s < 2 * SOON_S
    body, headers, answer = sound
    assert ask(server, "POST", INFER, body, headers) == (200, answer)
    assert server.workers() == workers
    assert peak_mebibytes(server) - before < GROWTH_MEBIBYTES
    assert "Traceback" not in server.stderr[said:]


def binary_request(fields: dict[str, Any], content: bytes, **parameters: object) -> tuple[bytes, dict[str, str]]:
    """A request with a binary tensor; ``parameters`` take the place of the true size."""
    tensor = {"name": "input", "datatype": "FP32", "parameters": {"binary_data_size": len(content)} | parameters}
    head = json.dumps({"inputs": [tensor | fields], "parameters": {"binary_data_output": True}}).encode()
    return head + content, {BINARY: str(len(head))}


def refused(answer: tuple[int, bytes], *statuses: int) -> str:
    """The code of a refusal, whose message has no path and no more than a few lines."""
    status, body = answer
    assert status in statuses, (status, body[:500])
    assert len(body) < 2000
    fields = json.loads(body)
    assert "/" not in fields["error"].replace("/openapi.json", "").replace(INFER, "")
    return str(fields["code"])


def png(width: int, height: int, rows: bytes, depth: int = 8) -> bytes:
    """A PNG in levels of grey with this header, whatever its compressed rows hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xda\x00\x0c\x03" + bytes(400)


def bomb(side: int) -> bytes:
    """A PNG of ``side`` times ``side`` black pixels, a thousandth of their size."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return png(side, side, rows, depth=1)


IMAGES = {
    "bomb-of-400-megapixels": bomb(20_000),
    "header-of-65535-squared-png": png(65_535, 65_535, zlib.compress(b"\0")),
    "header-of-65535-squared-jpeg": jpeg_header(65_535, 65_535),
    "header-of-4-billion-squared": png(0xFFFFFFFF, 0xFFFFFFFF, zlib.compress(b"\0")),
    "truncated": bomb(64)[:-30],
    "size-zero": png(0, 0, zlib.compress(b"")),
    "stream-of-garbage": png(16, 16, b"\xff" * 64),
    "pixels-that-never-end": png(16, 16, zlib.compress(bytes(900_000))),
    "empty": b"",
    "no-image": b"GIF89a" + bytes(20),
    "svg-with-address": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_is_no_honest_one_is_refused(name: str, server: ServeProcess) -> None:
    assert len(IMAGES[name]) < MAX_BYTES
    answer = ask(server, "POST", "/v1/label", IMAGES[name])
    if name == "pixels-that-never-end":  # the decoder stops after the rows that the header promises
        assert answer[0] in (200, 400)
    else:
        refused(answer, 400, 413)


def test_many_bombs_at_once_are_refused_within_the_memory(server: ServeProcess) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(ask(server, "POST", "/v1/label", bomb(9_000))[0]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert set(found) <= {400, 503}
    assert len(found) == 8


SIZE = 3 * 32 * 32 * 4
TENSORS: dict[str, tuple[dict[str, Any], int, dict[str, object]]] = {
    "size-too-small": ({}, SIZE, {"binary_data_size": SIZE - 4}),
    "size-too-large": ({}, SIZE, {"binary_data_size": SIZE + 4}),
    "size-of-an-exbibyte": ({}, SIZE, {"binary_data_size": 1 << 60}),
    "size-negative": ({}, SIZE, {"binary_data_size": -SIZE}),
    "size-as-text": ({}, SIZE, {"binary_data_size": "12288"}),
    "size-as-truth": ({}, SIZE, {"binary_data_size": True}),
    "size-as-fraction": ({}, SIZE, {"binary_data_size": 12288.0}),
    "shape-of-a-petabyte": ({"shape": [1 << 30, 3, 1 << 15, 1 << 15]}, SIZE, {}),
    "shape-that-overflows": ({"shape": [1 << 30, 1 << 30, 1 << 30, 4]}, SIZE, {}),
    "shape-negative": ({"shape": [-1, 3, 32, 32]}, SIZE, {}),
    "shape-of-10000-sizes": ({"shape": [1] * 10_000}, SIZE, {}),
    "shape-as-text": ({"shape": "1333"}, SIZE, {}),
    "shape-of-fractions": ({"shape": [1.0, 3, 32, 32]}, SIZE, {}),
    "shape-empty-batch-of-much": ({"shape": [0, 3, 1 << 30, 1 << 30]}, 0, {}),
    "datatype-bytes": ({"datatype": "BYTES"}, SIZE, {}),
    "datatype-object": ({"datatype": "object"}, SIZE, {}),
    "datatype-missing": ({"datatype": None}, SIZE, {}),
    "name-missing": ({"name": None}, SIZE, {}),
    "name-unknown": ({"name": "input\n\u0000"}, SIZE, {}),
    "shared-memory": ({}, SIZE, {"shared_memory_region": "region", "shared_memory_byte_size": SIZE}),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_contradicts_itself_is_refused(name: str, server: ServeProcess) -> None:
    fields, size, parameters = TENSORS[name]
    body, headers = binary_request({"shape": [1, 3, 32, 32]} | fields, bytes(size), **parameters)
    refused(ask(server, "POST", INFER, body, headers), 400)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float, server: ServeProcess) -> None:
    body, headers = binary_request({"shape": [1, 3, 32, 32]}, np.full(3 * 32 * 32, value, "<f4").tobytes())
    assert refused(ask(server, "POST", INFER, body, headers), 400) == "input-not-finite"


def nested(depth: int) -> bytes:
    return b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"


def objects(depth: int) -> bytes:
    return b'{"inputs": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "lists-100000-deep": (nested(100_000), {}),
    "objects-100000-deep": (objects(100_000), {}),
    "lists-never-closed": (b"[" * 900_000, {}),
    "lists-500-deep-in-a-parameter": (b'{"inputs": [], "parameters": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}", {}),
    "number-of-900000-digits": (b'{"inputs": [], "id": 1' + b"0" * 900_000 + b"}", {}),
    "not-utf-8": (b'{"inputs": "\xff\xfe"}', {}),
    "nan": (b'{"inputs": [{"name": "input", "datatype": "FP32", "shape": [NaN], "data": [1]}]}', {}),
    "key-1000-times": (b"{" + b",".join([b'"inputs": []'] * 1000) + b"}", {}),
    "empty": (b"", {}),
    "null": (b"null", {}),
    "head-longer-than-the-body": (b"{}", {BINARY: "999999999"}),
    "head-negative": (b"{}", {BINARY: "-1"}),
    "head-no-number": (b"{}", {BINARY: "1e3"}),
    "head-of-4000-digits": (b"{}", {BINARY: "9" * 4000}),
    "many-tensors": (json.dumps({"inputs": [{"name": str(number)} for number in range(20_000)]}).encode(), {}),
    "gzip": (zlib.compress(bytes(1 << 24)), {"Content-Encoding": "gzip"}),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_request_is_refused(name: str, server: ServeProcess) -> None:
    body, headers = BODIES[name]
    refused(ask(server, "POST", INFER, body, headers), 400, 415)


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
FORMS = {
    "no-end": (b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n" + bytes(1000), FORM),
    "no-boundary": (b"--x--", {"Content-Type": "multipart/form-data"}),
    "many-parts": (
        b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n\r\n" * 9_000 + b"--x--",
        FORM,
    ),
    "long-header": (b"--x\r\nContent-Disposition: " + b"a" * 900_000 + b"\r\n\r\n\r\n--x--", FORM),
    "text-in-place-of-a-file": (b"--x\r\nContent-Disposition: form-data; name=image\r\n\r\nabc\r\n--x--", FORM),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_that_is_none_is_refused(name: str, server: ServeProcess) -> None:
    body, headers = FORMS[name]
    refused(ask(server, "POST", "/v1/label", body, headers), 400)


def answer_to(connection: socket.socket) -> bytes:
    """What comes until the other side closes; nothing where it closes without a word."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("path", [INFER, "/v1/label"])
def test_a_body_of_a_gigabyte_is_refused_by_its_length(path: str, server: ServeProcess) -> None:
    with connect(server) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 30}\r\n\r\n"
        connection.sendall(head.encode() + bytes(1000))
        assert answer_to(connection).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path", [INFER, "/v1/label", "/v2/health/live"])
def test_a_body_of_a_gigabyte_in_chunks_is_cut_off(path: str, server: ServeProcess) -> None:
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    sent = 0
    with connect(server) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        try:
            while sent < 1 << 30:
                connection.sendall(chunk)
                sent += len(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 64 << 20


def test_endless_heads_are_cut_off_while_others_are_answered(server: ServeProcess) -> None:
    """Also those that never begin, as empty lines may stand before a request."""
    more = dict.fromkeys([connect(server) for _ in range(100)], b"a")
    more |= dict.fromkeys([connect(server) for _ in range(20)], b"\r\n")
    try:
        for connection, again in more.items():
            connection.sendall(b"POST /v1/label HTTP/1.1\r\nHost: x\r\nX-A: " if again == b"a" else again)
        began_s = time.monotonic()
        open_ones = list(more)
        while open_ones and time.monotonic() - began_s < SOON_S:
            assert ask(server, "GET", "/v2/health/ready")[0] == 200
            open_ones = [connection for connection in open_ones if still_open(connection, more[connection])]
            time.sleep(0.3)
        assert open_ones == []
    finally:
        for connection in more:
            connection.close()


def still_open(connection: socket.socket, again: bytes) -> bool:
    """Sends more of the head; ``False`` where the server has closed the connection."""
    connection.setblocking(False)
    try:
        connection.send(again)
        return connection.recv(1000, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_a_head_without_end_in_size_is_cut_off(server: ServeProcess) -> None:
    sent = 0
    with connect(server) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n")
        try:
            while sent < 1 << 26:
                connection.sendall(b"X-A: " + b"a" * 4000 + b"\r\n")
                sent += 4000
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 1 << 24


def test_a_body_that_trickles_is_refused_in_time(server: ServeProcess) -> None:
    began_s = time.monotonic()
    with connect(server) as connection:
        connection.sendall(b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        trickle(connection, until_s=began_s + SOON_S)
        assert b"408" in answer_to(connection)[:20]
    assert TIMEOUT_S <= time.monotonic() - began_s < SOON_S


def test_a_connection_goes_on_after_the_rest_of_a_body(server: ServeProcess) -> None:
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(b"POST /v2/models/none/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n")
            assert json_answer(connection).startswith(b"HTTP/1.1 404")
            connection.sendall(bytes(50_000))
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert json_answer(connection).startswith(b"HTTP/1.1 200")


def answer_of_length(connection: socket.socket) -> bytes:
    """One answer, whose head tells the length of its body."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1 << 16)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(int(line.partition(b":")[2]) for line in head.lower().splitlines() if line.startswith(b"content-l"))
    while len(body) < length:
        body += connection.recv(1 << 16)
    return head + body


def json_answer(connection: socket.socket) -> bytes:
    """One answer whose body is an object of JSON."""
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(1 << 16)
        assert part, answer
        answer += part
    return answer


def trickle(connection: socket.socket, until_s: float) -> None:
    """Sends a byte ten times a second, until an answer is there."""
    while time.monotonic() < until_s:
        connection.settimeout(0.1)
        try:
            if connection.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            connection.sendall(b"a")
    connection.settimeout(SOON_S)


def test_an_offer_of_another_protocol_is_passed_over(server: ServeProcess, onnx_artifact: Artifact) -> None:
    """Clients of Java offer HTTP/2 in each request, also in those with a body."""
    vectors = onnx_artifact.vectors()
    body, headers = binary_request({"shape": list(vectors.inputs.shape)}, vectors.inputs.tobytes())
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"}
    fields = {**headers, **offer, "Content-Length": str(len(body))}
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n" + "".join(f"{name}: {fields[name]}\r\n" for name in fields) + "\r\n"
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(head.encode())
            connection.sendall(body)
            assert answer_of_length(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(
            b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        assert json_answer(connection).startswith(b"HTTP/1.1 200")


def test_clients_that_leave_free_their_places(server: ServeProcess) -> None:
    body, headers = binary_request({"shape": [64, 3, 32, 32]}, bytes(64 * SIZE))
    head = "".join(f"{name}: {value}\r\n" for name, value in (headers | {"Content-Length": str(len(body))}).items())
    for _ in range(40):
        with connect(server) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body)
    assert ask(server, "GET", "/v2/health/ready")[0] == 200


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /none HTTP/9.9\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/label HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/label HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFF\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["tls", "version", "proxy", "http2", "two-lengths", "negative-length", "chunk-length", "long-address"],
)
def test_bytes_that_are_no_request_are_refused(text: bytes, server: ServeProcess) -> None:
    with connect(server) as connection:
        connection.sendall(text)
        assert connection.recv(12) in (b"", b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "path",
    ["/v2/models/..%2f..%2fetc%2fpasswd", "/%00", "/v2/models/%ff/ready", "/static/../../etc/passwd", "/v2/repository"],
)
def test_addresses_outside_the_server_are_unknown(path: str, server: ServeProcess) -> None:
    refused(ask(server, "GET", path), 404)


def test_the_answers_are_the_right_ones(server: ServeProcess, onnx_artifact: Artifact) -> None:
    """The check after each test compares answers with each other, so this one compares them with the vectors."""
    vectors = onnx_artifact.vectors()
    body, headers = binary_request({"shape": list(vectors.inputs.shape)}, vectors.inputs.tobytes())
    status, answer = ask(server, "POST", INFER, body, headers)
    assert status == 200
    logits = np.frombuffer(answer[-vectors.logits.nbytes :], np.float32).reshape(vectors.logits.shape)
    np.testing.assert_allclose(logits, vectors.logits, rtol=1e-3, atol=1e-4)
