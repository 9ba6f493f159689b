"""A program for the environment of KServe: ``docs/examples/kserve_model.py`` at the loopback address alone.

``python kserve_server.py ARTIFACT --http_port N --grpc_port N``. KServe itself listens at all addresses.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import grpc
import uvicorn

EXAMPLE = Path(__file__).parents[3] / "docs/examples/kserve_model.py"


def stay_on_loopback() -> None:
    """Replaces the addresses that KServe's two servers listen at."""
    configure, make_server = uvicorn.Config.__init__, grpc.aio.server

    def configure_loopback(self: Any, *arguments: Any, **options: Any) -> None:
        configure(self, *arguments, **options | {"host": "127.0.0.1"})

    def make_loopback_server(*arguments: Any, **options: Any) -> Any:
        server = make_server(*arguments, **options)
        add_port = server.add_insecure_port
        server.add_insecure_port = lambda address: add_port(address.replace("[::]", "127.0.0.1"))
        return server

    uvicorn.Config.__init__ = configure_loopback  # type: ignore[method-assign]
    grpc.aio.server = make_loopback_server


if __name__ == "__main__":
    stay_on_loopback()
    runpy.run_path(str(EXAMPLE), run_name="__main__")
