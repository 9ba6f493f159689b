"""The refusal to copy or pickle an opened model, which lives in the memory of one process."""

from __future__ import annotations

from typing import NoReturn

from runtimes.artifacts.artifact import Artifact
from runtimes.errors import UsageError, quote


def refuse_to_copy(kind: str, opening: str, artifact: Artifact) -> NoReturn:
    """Raise the error for a copy of an opened model.

    ``pickle``, ``copy``, ``multiprocessing``, joblib and Ray ask an object how it is copied, and get this error.

    Args:
        kind: What the opened model is, as ``Runtime``.
        opening: The function that opens it, as ``runtimes.open``.
        artifact: The artifact.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        f"a {kind} cannot be copied or pickled, because its model lives in the memory of this process",
        code="model-not-picklable",
        path=artifact.path,
        hint=f"pass the path instead, and call {opening}({quote(artifact.path)!r}) in the other process",
    )
