"""From an error to the status of the row that tells of it: the one place that decides."""

from __future__ import annotations

from typing import Literal, TypeAlias

from runtimes.errors import BackendUnavailableError, CheckFailedError, CompatibilityError, RexportError

Failing: TypeAlias = Literal["failed", "skipped", "error"]

REFUSALS: tuple[type[RexportError], ...] = (CompatibilityError, BackendUnavailableError)
"""What cannot run here was not tried."""


def status_of(error: BaseException, refusals: tuple[type[RexportError], ...] = REFUSALS) -> Failing:
    """``failed`` for a check, ``skipped`` for one of the ``refusals``; anything else broke and is an ``error``."""
    if isinstance(error, CheckFailedError):
        return "failed"
    return "skipped" if isinstance(error, refusals) else "error"
