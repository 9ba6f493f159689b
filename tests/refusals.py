"""Assert that something is refused: by the kind of error, its code, and the values that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runtimes.errors import RexportError


@contextmanager
def refuses(kind: type[RexportError], code: str, *values: object) -> Iterator[pytest.ExceptionInfo[RexportError]]:
    """Passes where the block raises exactly this kind of error with this code, and its line names each of the values.

    The sentence itself is pinned in the table of sentences, and nowhere else.
    """
    with pytest.raises(RexportError) as caught:
        yield caught
    assert (type(caught.value), caught.value.code) == (kind, code)
    for value in values:
        assert str(value) in str(caught.value)


def error_codes(stderr: str) -> list[str]:
    """The codes of the lines ``error[CODE]: ...`` that a command printed, in their order."""
    return re.findall(r"^error\[([a-z0-9-]+)\]: ", stderr, flags=re.MULTILINE)
