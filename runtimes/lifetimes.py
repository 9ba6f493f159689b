"""Opened models at the end of a process and in a forked one, where libraries would hang or abort.

A fork copies the memory of a library, but none of its threads. Freeing a model would wait for these threads, and the
child would never end. So the child keeps such models until it ends; their memory is shared with the parent.

At its end, the interpreter stops daemon threads as soon as they need it. A thread that comes back from the C++ code of
a library then aborts the whole process. So calls that are running are waited for, and daemon threads make no others.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import weakref
from collections.abc import Iterator
from typing import Protocol


class OpenedModel(Protocol):
    """A model that holds objects of a library and calls it."""

    def native_objects(self) -> Iterator[object]:
        """Yield the objects that a forked process must not free."""

    def finish_calls(self) -> None:
        """Wait for running calls, after which daemon threads can make none."""


_OPENED: weakref.WeakSet[OpenedModel] = weakref.WeakSet()
"""All models that are opened in this process."""


def track(model: OpenedModel) -> None:
    """Look after an opened model from now on, until it is garbage."""
    _OPENED.add(model)


def _keep_all() -> None:
    """Keep all inherited objects for ever, in a child: references that nobody gives back outlive the interpreter."""
    for model in list(_OPENED):
        for native in model.native_objects():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(native))
    _OPENED.clear()


def _finish_all() -> None:
    for model in list(_OPENED):
        model.finish_calls()


if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_keep_all)
atexit.register(_finish_all)
