"""The layer around each request: its id, its line in the log, its metrics, and the answer to an error.

A line of the log is JSON, or text for people. Neither holds a path of the server, nor bytes of the request.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtimes.errors import quote
from runtimes.escaping import log_value
from runtimes.serving.body import ClientGoneError
from runtimes.serving.metrics import ServingMetrics
from runtimes.serving.refusals import CLIENT_GONE, code_of, message_of, status_of
from runtimes.serving.service import Service

LogFormat: TypeAlias = Literal["text", "json", "none"]
"""How a server writes its log: lines for people, objects of JSON, or not at all."""

RECORD = "rexport.record"
"""The key of the request's ``RequestRecord`` in its ASGI scope."""

_PROCESS, _NUMBERS = os.urandom(4).hex(), itertools.count()
"""The ids that a process makes begin alike; they differ from those of other processes."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass
class RequestRecord:
    """The facts of one request for the log and the metrics.

    Attributes:
        id: The id of the request: the client's, or a new one.
        model: The name of the model that answers, once it is known.
        received_bytes: The size of the body.
        sent_bytes: The size of the answer's body.
        status: The status of the answer, once it is known.
        code: The code of the error, or an empty text.
        began_s: The time of its arrival, by ``time.perf_counter``.
    """

    id: str
    model: str = ""
    received_bytes: int = 0
    sent_bytes: int = 0
    status: int = 0
    code: str = ""
    began_s: float = field(default_factory=time.perf_counter)


def request_id(given: str | None) -> str:
    """Return the client's id of a request if it is short and plain, or a new one."""
    if given is not None and _ID.fullmatch(given):
        return given
    return f"{_PROCESS}{next(_NUMBERS):08x}"


class RequestLog:
    """The writer of the log.

    Args:
        format: How it writes.
        write: Writes one line. The default is standard error.
    """

    def __init__(self, format: LogFormat, write: Callable[[str], object] | None = None) -> None:
        self._format = format
        self._write = _write_stderr if write is None else write

    def event(self, event: str, **fields: object) -> None:
        """Write a line about the server.

        Args:
            event: What happened, in one or two words.
            fields: The values.
        """
        if self._format == "none":
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._format == "json":
            self._write(json.dumps({"time": now, "event": event} | fields))
        else:
            values = (f"{name}={log_value(value)}" for name, value in fields.items() if value != "")
            self._write(" ".join((now, event, *values)))

    def finish(self, method: str, route: str, record: RequestRecord, metrics: ServingMetrics) -> None:
        """Count an answered request, and write its line.

        Args:
            method: The method of HTTP, or ``gRPC``.
            route: The path of the route, or the name of the call.
            record: The request.
            metrics: The metrics that count it.
        """
        duration_s = time.perf_counter() - record.began_s
        sizes = (record.received_bytes, record.sent_bytes)
        metrics.observe_request(route, record.model, record.status, sizes, duration_s)
        if self._format == "none":
            return
        self.event(
            "request",
            id=record.id,
            method=method,
            route=route,
            model=record.model,
            status=record.status,
            code=record.code,
            received_bytes=record.received_bytes,
            sent_bytes=record.sent_bytes,
            ms=round(duration_s * 1e3, 3),
        )

    def failure(self, record: RequestRecord, error: BaseException) -> None:
        """Write the reason of an internal error, which the client does not see.

        Args:
            record: The request.
            error: The error.
        """
        trace = "".join(traceback.format_exception(error))
        self.event("error", id=record.id, error=quote(error), trace=trace)


def _write_stderr(line: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads the log any more; requests are answered nevertheless
        sys.stderr.write(line + "\n")


class RequestEnvelope:
    """The outermost layer of the app, which each request passes.

    Args:
        app: The app inside.
        service: The models.
        log: The log.
    """

    def __init__(self, app: ASGIApp, service: Service, log: RequestLog) -> None:
        self._app = app
        self._service = service
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = scope[RECORD] = RequestRecord(request_id(_header(scope, b"x-request-id")))
        is_head = scope["method"] == "HEAD"  # answered as GET, without the body
        routed = {**scope, "method": "GET"} if is_head else scope

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", record.id.encode())]
                if self._service.draining:
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            else:
                if is_head:
                    message["body"] = b""
                record.sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(routed, receive, send_and_note)
        except ClientGoneError:
            record.status = CLIENT_GONE
        except asyncio.CancelledError:
            record.status = CLIENT_GONE
            raise
        except Exception as error:
            await self._answer_failure(record, error, send_and_note)
        finally:
            self._log.finish(scope["method"], route_of(routed), record, self._service.metrics)

    async def _answer_failure(self, record: RequestRecord, error: Exception, send: Send) -> None:
        began = bool(record.status)
        self._log.failure(record, error)
        record.code = code_of(error)
        if began:
            raise error
        body = error_body(record, error)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status_of(error), "headers": headers})
        await send({"type": "http.response.body", "body": body})


def record_of(scope: Scope) -> RequestRecord:
    """Return the record of the request with this scope."""
    record: RequestRecord = scope[RECORD]
    return record


def route_of(scope: Scope) -> str:
    """Return the path of the route that a request took, or ``none``."""
    path: Any = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "none"


def error_body(record: RequestRecord, error: Exception) -> bytes:
    """Return the body of the answer to an error.

    Args:
        record: The request.
        error: The error.
    """
    fields = {"error": message_of(error), "code": code_of(error), "request_id": record.id}
    return json.dumps(fields).encode()


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None
