from __future__ import annotations

import pytest

from benchmarks.process.job import REFUSALS, status_of
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    ModelMismatchError,
    ResourceError,
    RexportError,
    UsageError,
)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (CheckFailedError, "failed"),
        (CompatibilityError, "skipped"),
        (ModelMismatchError, "skipped"),
        (BackendUnavailableError, "skipped"),
        (UsageError, "error"),
        (ArtifactError, "error"),
        (ResourceError, "error"),
    ],
)
def test_each_kind_of_error_has_a_status(kind: type[RexportError], status: str) -> None:
    assert status_of(kind("it broke")) == status


def test_what_counts_as_a_refusal_can_be_said() -> None:
    assert status_of(CompatibilityError("it broke"), (BackendUnavailableError,)) == "error"
    assert status_of(UsageError("it broke"), (*REFUSALS, UsageError)) == "skipped"
    assert status_of(CheckFailedError("it broke"), (CheckFailedError,)) == "failed"
    assert status_of(RuntimeError("it broke")) == "error"
