"""Progress of an export or a benchmark, for a callback or for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from exporter.export_request import ExportListener
from rexport.wording import in_python
from runtimes import notices
from runtimes.errors import Reason

Progress: TypeAlias = Callable[[float, float | None, str], object]
"""A function of ``(done, total, description)``. ``total`` is ``None`` while it is not known.

An export counts its steps and knows no total. A benchmark counts seconds: ``done`` since it began, ``total`` as it is
estimated at the time. What the function returns is ignored; what it raises ends the work and comes through.
"""


@contextmanager
def listen_to_export(progress: Progress | bool | None) -> Iterator[ExportListener]:
    """A listener that passes steps on to ``progress``, or prints them as the command does if it is ``True``. Notices go
    to the logger ``rexport``, unless they are printed."""
    if progress is True:
        from exporter.commands.terminal import listening

        with listening() as listener:
            yield listener
        return
    counter = _Steps(progress or ignore_progress)
    yield ExportListener(counter.step, log_notice)


def ignore_progress(done: float, total: float | None, description: str) -> None:
    """The callback where none is given."""
    del done, total, description


def log_notice(notice: str | Reason) -> None:
    """A warning if the notice has a code, else information. It names parameters where the command names options."""
    text = in_python(str(notice))
    if isinstance(notice, Reason):
        notices.warn(Reason(notice.code, text))
    else:
        notices.inform(text)


class _Steps:
    """Counts steps."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0

    def step(self, description: str) -> None:
        self._progress(self._done, None, description)
        self._done += 1
