"""Servers for tests: an application in a thread, or the process of ``scripts.figures.server_process``."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runtimes.serving.app import create_app
from runtimes.serving.http_server import HttpServer
from runtimes.serving.model import ServedModel
from runtimes.serving.service import Service
from runtimes.serving.settings import DEFAULT_SETTINGS, ServingSettings
from scripts.figures.server_process import LIMIT_S as LIMIT_S
from scripts.figures.server_process import Address as Address
from scripts.figures.server_process import ServeProcess as ServeProcess
from scripts.figures.server_process import serve_command as serve_command
from scripts.figures.server_process import serve_process as serve_process


@dataclass(frozen=True)
class AppServer:
    """An application that answers in a thread."""

    address: Address
    service: Service


@contextmanager
def serve_app(models: list[ServedModel], settings: ServingSettings = DEFAULT_SETTINGS) -> Iterator[AppServer]:
    """Serves the models in a thread, and closes them in the end."""
    app = create_app(models, settings)
    started, loops = threading.Event(), []
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, on_signal=lambda _: None, on_start=started.set)

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    address = Address(*listener.getsockname())
    thread.start()
    try:
        assert started.wait(LIMIT_S)
        yield AppServer(address, app.state.service)
    finally:
        asyncio.run_coroutine_threadsafe(server.retire(0), loops[0]).result(LIMIT_S)
        thread.join(LIMIT_S)
        app.state.service.close()
        for model in models:
            model.close()
    assert not thread.is_alive()
