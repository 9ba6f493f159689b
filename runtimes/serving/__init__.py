"""Serve models over HTTP and gRPC: the Open Inference Protocol, and labels of images.

``create_app`` gives an application for an ASGI server, or for mounting in another one. It needs FastAPI, which the
extra ``serve`` installs. ``import runtimes.serving`` imports nothing but names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.serving.app import create_app
    from runtimes.serving.model import ServedModel
    from runtimes.serving.settings import ServingSettings

__all__ = ["ServedModel", "ServingSettings", "create_app"]

_MODULES = {"ServedModel": "model", "ServingSettings": "settings", "create_app": "app"}
"""The module of this package that defines each name of ``__all__``."""


def __getattr__(name: str) -> object:
    """Import a public name on first use and keep it in this module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List all public names, including those not imported yet."""
    return sorted({*globals(), *__all__})
