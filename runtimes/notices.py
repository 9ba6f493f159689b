"""Notices for people: lines on the logger ``rexport``, which the commands show on standard error."""

from __future__ import annotations

from runtimes.errors import Reason

LOGGER = "rexport"
"""The name of the logger. The attribute ``code`` of its records is the code of the reason. Plain text has none."""


def warn(reason: Reason) -> None:
    """Tell of something that may not be what the user wants."""
    _log("warning", reason)


def inform(reason: Reason | str) -> None:
    """Tell of something that the program did or waits for."""
    _log("info", reason)


def _log(level: str, reason: Reason | str) -> None:
    import logging  # not at load: most processes have no notice, and it takes long to import

    extra = {"code": reason.code} if isinstance(reason, Reason) else None
    getattr(logging.getLogger(LOGGER), level)("%s", reason, extra=extra)
