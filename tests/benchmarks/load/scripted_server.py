"""A server of the Open Inference Protocol with a script: ``python -m tests.benchmarks.load.scripted_server SCRIPT``.

It answers as the network of ``runtimes.backends.fake`` does, over HTTP and gRPC, and prints its two ports. SCRIPT is
the JSON of a ``ServerScript``. The process ends when standard input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.worker.senders import new_loop
from runtimes import codec
from runtimes.backends.fake import answers
from runtimes.protocol import Array
from tests.benchmarks.scripts import SCRIPT

SCRIPTED = SCRIPT.inputs[0].name, SCRIPT.outputs[0].name


@dataclass(frozen=True)
class ServerScript:
    """What the server does; requests count from the first, those of checks and warm-ups included.

    Attributes:
        delays_s: of the answers, in turn.
        serial: whether one request at a time is worked on.
        stall_every: after so many requests comes a stall; 0 for none.
        stall_s: how long nothing is answered then.
        refuse_every: one request in so many gets 503; 0 for none.
        scale: of the outputs, to make them wrong.
        busy_only: whether refusals, lost connections and wrong outputs begin when two requests come at once, as a load
            sends them and no check does.
        chunked: whether answers are sent in chunks.
        drop_every: one request in so many loses its connection; 0 for none.
    """

    delays_s: tuple[float, ...] = (0.0,)
    serial: bool = False
    stall_every: int = 0
    stall_s: float = 0.0
    refuse_every: int = 0
    scale: float = 1.0
    busy_only: bool = False
    chunked: bool = False
    drop_every: int = 0


@dataclass(frozen=True)
class Ports:
    """Where a scripted server listens."""

    http: str
    grpc: str


@contextmanager
def scripted_server(script: ServerScript) -> Iterator[Ports]:
    """A process that serves the script."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.load.scripted_server", codec.dumps(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        http, grpc = process.stdout.readline().split()
        yield Ports(f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{grpc}")
    finally:
        process.communicate(timeout=30)  # closes standard input


class RefusedError(Exception):
    """The script says 503."""


class DroppedError(Exception):
    """The script closes the connection."""


class ScriptedModel:
    """Answers by the script; one for both protocols."""

    def __init__(self, script: ServerScript) -> None:
        self._script = script
        self._count = self._working = 0
        self._turn = asyncio.Lock()
        self._stalled_until_s = 0.0

    async def infer(self, images: Array) -> Array:
        self._working += 1
        try:
            return await self._infer(images, faulty=self._working > 1 or not self._script.busy_only)
        finally:
            self._working -= 1

    async def _infer(self, images: Array, faulty: bool) -> Array:
        script, number, now_s = self._script, self._count, asyncio.get_running_loop().time
        self._count += 1
        if faulty and _is_due(number, script.drop_every):
            raise DroppedError
        if faulty and _is_due(number, script.refuse_every):
            raise RefusedError
        if _is_due(number, script.stall_every):
            self._stalled_until_s = now_s() + script.stall_s
        delay_s = script.delays_s[number % len(script.delays_s)]
        if script.serial:
            async with self._turn:
                await asyncio.sleep(delay_s)
        elif delay_s:
            await asyncio.sleep(delay_s)
        while (left_s := self._stalled_until_s - now_s()) > 0:
            await asyncio.sleep(left_s)
        scale = np.float32(script.scale if faulty else 1.0)
        return answers(SCRIPT, {SCRIPTED[0]: images})[SCRIPTED[1]] * scale


def _is_due(number: int, every: int) -> bool:
    return every > 0 and number % every == every - 1


def metadata(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "datatype": "FP32", "shape": [-1, *spec.shape[1:]]}


MODEL = {
    "name": "net",
    "versions": ["3"],
    "platform": "script",
    "inputs": [metadata(SCRIPT.inputs[0])],
    "outputs": [metadata(SCRIPT.outputs[0])],
}
SERVER = {"name": "scripted", "version": "1.2", "extensions": []}


async def handle(
    model: ScriptedModel, chunked: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection of HTTP."""
    try:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            first, *lines = head.split("\r\n")
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            await respond(model, chunked, first.split()[1], headers, body, writer)
    except (asyncio.IncompleteReadError, ConnectionError, DroppedError):
        writer.transport.abort()


async def respond(
    model: ScriptedModel, chunked: bool, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
) -> None:
    length = None
    status, content = 200, b""
    if path == "/v2":
        content = json.dumps(SERVER).encode()
    elif path == "/v2/repository/index":
        content = b'[{"name": "net"}]'
    elif path == "/v2/models/net" or path == "/v2/models/net/versions/3":
        content = json.dumps(MODEL).encode()
    elif path.endswith("/infer"):
        split = int(headers["inference-header-content-length"])
        shape = json.loads(body[:split])["inputs"][0]["shape"]
        try:
            logits = await model.infer(np.frombuffer(body[split:], np.float32).reshape(shape))
        except RefusedError:
            status, content = 503, b'{"error": "the queue is full"}'
        else:
            data, output = logits.astype(np.float32).tobytes(), metadata(SCRIPT.outputs[0])
            output |= {"shape": list(logits.shape), "parameters": {"binary_data_size": len(data)}}
            header = json.dumps({"model_name": "net", "outputs": [output]}).encode()
            content, length = header + data, len(header)
    else:
        status, content = 404, b'{"error": "unknown model"}'
    lines = [f"HTTP/1.1 {status} -", *([] if length is None else [f"Inference-Header-Content-Length: {length}"])]
    if chunked:
        parts = [content[:7], content[7:]]
        lines.append("Transfer-Encoding: chunked")
        content = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts if part) + b"0\r\n\r\n"
    else:
        lines.append(f"Content-Length: {len(content)}")
    writer.write("\r\n".join((*lines, "", "")).encode() + content)


def add_grpc(server: Any, model: ScriptedModel) -> None:
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc import service_pb2_grpc

    def tensors(kind: Any, rows: Any) -> list[Any]:
        return [kind(name=row["name"], datatype=row["datatype"], shape=row["shape"]) for row in rows]

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc, unused-ignore]
        async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return messages.ServerMetadataResponse(**SERVER)

        async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            kind, rows = messages.ModelMetadataResponse.TensorMetadata, {**MODEL}
            inputs, outputs = tensors(kind, rows.pop("inputs")), tensors(kind, rows.pop("outputs"))
            return messages.ModelMetadataResponse(**rows, inputs=inputs, outputs=outputs)

        async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return messages.RepositoryIndexResponse(models=[{"name": "net"}])

        async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
            images = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(request.inputs[0].shape))
            try:
                logits = await model.infer(images)
            except RefusedError:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the queue is full")
            answer = messages.ModelInferResponse(model_name="net", model_version="3")
            answer.outputs.add(name=SCRIPTED[1], datatype="FP32", shape=logits.shape)
            answer.raw_output_contents.append(logits.astype(np.float32).tobytes())
            return answer

    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)


async def serve(script: ServerScript) -> None:
    import grpc.aio

    model = ScriptedModel(script)
    http = await asyncio.start_server(lambda *ends: handle(model, script.chunked, *ends), "127.0.0.1", 0)
    server = grpc.aio.server()
    add_grpc(server, model)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), os._exit, 0)
    sys.stdout.write(f"{http.sockets[0].getsockname()[1]} {port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(codec.loads(ServerScript, sys.argv[1])))
