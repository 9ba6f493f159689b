from __future__ import annotations

import pytest

from benchmarks import format


def test_a_margin_is_the_larger_distance_rounded_up() -> None:
    assert format.duration(0.00041, (0.000405, 0.000416)) == "0.410 ± 0.006"
    assert format.duration(0.00041, (0.00041, 0.0004100001)) == "0.410 ± 0.001"
    assert format.times(6.0976, (5.95, 6.21)) == "6.10x ± 0.15"
    assert format.share(0.9349, (0.9299, 0.9396)) == "93.49 ± 0.50"


def test_a_value_without_an_interval_stands_alone() -> None:
    assert (format.duration(0.0025, None), format.times(1.0, None), format.times(12.34, None)) == (
        "2.50",
        "1.00x",
        "12.3x",
    )
    assert format.duration(None, None) == format.share(None, None) == format.percent(None) == format.number(None) == "–"
    assert format.points(None, None) == format.change(None, None) == format.times(None, None) == "–"


def test_differences_have_a_margin_and_changes_a_sign() -> None:
    assert format.points(-0.0012, (-0.003, 0.0005)) == "-0.12 ± 0.18"
    assert format.change(0.0012, (-0.0005, 0.0029)) == "+0.12 ± 0.17"
    assert format.change(-0.00001, (-0.0002, 0.0002)) == "0.00 ± 0.03"
    assert format.change(0.0, None) == format.change(-0.0, None) == "0.00"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format.duration(0.191, (0.0138, 2.641)), "191 too noisy"),
        (format.duration(0.001, (0.0005, 0.0015)), "1.00 ± 0.50"),  # as wide as its value
        (format.duration(0.001, (0.0005, 0.00151)), "1.00 too noisy"),
        (format.times(182.4, (1.7, 19543.76)), "182x too noisy"),
        (format.share(0.1, (0.01, 0.4)), "10.00 too noisy"),
    ],
)
def test_an_interval_wider_than_its_value_is_not_printed(text: str, expected: str) -> None:
    assert text == expected


def test_a_ratio_in_a_sentence_has_two_digits_and_three_below_2() -> None:
    assert [format.rounded_times(ratio) for ratio in (1.049, 1.999, 6.0976, 12.34, 182.4)] == [
        *("1.05x", "2.0x", "6.1x", "12x", "182x"),
    ]
