"""A server on loopback that gives one answer to every request at once: ``null_server PROTOCOL LENGTH HEADER_LENGTH``.

A load there takes only the client's own part of the time. PROTOCOL is http or grpc. Standard input begins with the
LENGTH bytes of the answer, and the process ends when its parent closes it. Standard output is the port.
"""

from __future__ import annotations

import asyncio
import os
import sys

from benchmarks.worker.senders import GRPC_METHOD, new_loop

HOST = "127.0.0.1"


class _Answers(asyncio.Protocol):
    """One connection of HTTP/1.1, whose requests all have a Content-Length."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._buffer = bytearray()
        self._missing: int | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._missing is None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            length = head.rpartition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self._missing = int(length) - (len(self._buffer) - end - 4)
            self._buffer.clear()
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            self._missing = None
            self._transport.write(self._answer)


async def serve_http(answer: bytes, header_length: str) -> None:
    """Give every request the ``answer`` until the process is ended; ``header_length`` is that of its JSON, or empty."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(answer)}"]
    if header_length:
        lines.append(f"Inference-Header-Content-Length: {header_length}")
    whole = "\r\n".join((*lines, "", "")).encode() + answer
    server = await asyncio.get_running_loop().create_server(lambda: _Answers(whole), HOST, 0)
    _print_port(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def serve_grpc(answer: bytes) -> None:
    """Give every request the ``answer`` until the process is ended."""
    import grpc
    import grpc.aio

    async def give(_request: bytes, _context: object) -> bytes:
        return answer

    service, method = GRPC_METHOD.strip("/").split("/")
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    handler = grpc.unary_unary_rpc_method_handler(give)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    _print_port(port)
    await server.wait_for_termination()


def _print_port(port: int) -> None:
    """Print the port, and end the process when standard input ends."""
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), os._exit, 0)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    protocol, length, header_length = sys.argv[1:]
    answer = sys.stdin.buffer.read(int(length))
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve_grpc(answer) if protocol == "grpc" else serve_http(answer, header_length))
