from __future__ import annotations

import pytest

from benchmarks.roofline.executed_precision import count_layers, narrower, wider


@pytest.mark.parametrize(
    ("precision", "arithmetic", "less", "more"),
    [
        ("fp32", "float32", False, False),
        ("fp32", "bfloat16", True, False),
        ("fp32", "bfloat16 (53 of 54), float32 (1 of 54)", True, False),
        ("fp32", "tfloat32", True, False),
        ("tf32", "tfloat32", False, False),
        ("tf32", "float32", False, True),
        ("fp16", "float16", False, False),
        ("fp16", "bfloat16", False, False),
        ("fp16", "float32", False, True),
        ("int8", "int8", False, False),
        ("int8", "int8 (53 of 54), float32 (1 of 54)", False, False),
        ("int8", "float32 (30 of 54), uint8 (24 of 54)", False, True),
        ("int8", "float32 int8", False, False),  # how much of either is not known
        ("fp16", "nothing weighted", False, False),
        ("fp16", None, False, False),
        (None, "float32", False, False),
    ],
)
def test_what_ran_against_what_was_typed(precision: str | None, arithmetic: str | None, less: bool, more: bool) -> None:
    below, above = narrower(precision, arithmetic), wider(precision, arithmetic)
    assert (below and below.code, above and above.code) == ("ran-narrower" if less else None, "ran-wider" if more else None)
    for reason in filter(None, (below, above)):
        assert f"{precision}" in reason.sentence
        assert reason.sentence.endswith(f"{arithmetic}")


def test_layers_are_counted_where_the_words_count_them() -> None:
    assert count_layers("int8 (53 of 54), float32 (1 of 54)") == {"int8": 53, "float32": 1}
    assert count_layers("float32") == count_layers(None) == {}
