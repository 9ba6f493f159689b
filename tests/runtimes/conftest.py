"""What tests of the runtimes share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def said() -> Iterator[list[tuple[str, str]]]:
    """What the runtimes announce: the code and the message of each warning."""
    lines: list[tuple[str, str]] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.levelno == logging.WARNING
            lines.append((vars(record)["code"], record.getMessage()))

    ear = Ear()
    logging.getLogger("rexport").addHandler(ear)
    yield lines
    logging.getLogger("rexport").removeHandler(ear)
