from __future__ import annotations

from benchmarks import format


def test_intervals_stand_in_brackets_behind() -> None:
    assert format.duration(0.00041, (0.000405, 0.000416)) == "0.410 [0.405–0.416]"
    assert format.duration(None, None) == "–"
    assert format.times(6.0976, (5.95, 6.21)) == "6.10 [5.95–6.21]"
    assert format.times(1.0, None) == "1.00"
    assert format.share(0.9349, (0.9299, 0.9396)) == "93.49 [93.0–94.0]"
    assert format.share(None, None) == format.percent(None) == format.number(None) == "–"


def test_points_have_a_sign_and_an_interval() -> None:
    assert format.points(None, None) == "–"
    assert format.points(-0.0012, (-0.003, 0.0005)) == "-0.12 [-0.30, 0.05]"
