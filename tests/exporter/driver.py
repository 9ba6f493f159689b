"""``rexport`` with torch's part of an ONNX export replaced by a file, and a pause where a test wants one.

``python -m tests.exporter.driver GRAPH PAUSE ARGUMENTS...``: ``PAUSE`` is a step's name, ``replace N`` for the N-th
renaming of a file, ``noise`` for a library that prints to stdout, or ``none``. A pause is said on stderr and lasts
until a signal comes.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx as onnx_library

from exporter import cli
from exporter.commands import terminal
from exporter.export_request import ExportListener
from exporter.targets import onnx_file

PAUSE_S = 120


def _pause() -> None:
    logging.getLogger("rexport").info("pausing")
    time.sleep(PAUSE_S)


def _pause_at_step(name: str) -> None:
    original = terminal.listening

    @contextmanager
    def listening() -> Iterator[ExportListener]:
        with original() as listener:
            yield ExportListener(step=lambda text: _pause() if text == name else None, notice=listener.notice)

    terminal.listening = listening


def _pause_at_replace(number: int) -> None:
    original, count = os.replace, 0

    def replace(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            _pause()
        original(*arguments)

    os.replace = replace  # type: ignore[assignment]


def main() -> None:
    """Patches, then runs the command line."""
    graph, pause = Path(sys.argv[1]), sys.argv[2]
    sys.argv = ["rexport", *sys.argv[3:]]

    def traced(*_: object) -> onnx_library.ModelProto:
        if pause == "noise":
            print("a library talks")  # noqa: T201
            os.write(1, b"native code talks\n")
        return onnx_library.load(graph)

    onnx_file._trace = traced  # type: ignore[assignment]
    if pause.startswith("replace "):
        _pause_at_replace(int(pause.removeprefix("replace ")))
    else:
        _pause_at_step(pause)
    cli.main()


if __name__ == "__main__":
    main()
