from __future__ import annotations

import pytest

from exporter.format import milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.0004123, "0.412"),
        (0.0034567, "3.46"),
        (0.0123456, "12.3"),
        (0.1234567, "123"),
        (12.34567, "12,346"),
    ],
)
def test_milliseconds(seconds: float | None, text: str) -> None:
    assert milliseconds(seconds) == text
