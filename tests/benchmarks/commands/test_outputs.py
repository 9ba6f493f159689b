from __future__ import annotations

import html
import logging
from pathlib import Path

import pytest

from benchmarks.commands import outputs
from benchmarks.report_html import svg
from tests.benchmarks.results import FASTER, REFERENCE


def test_three_files_and_nothing_to_say(tmp_path: Path, notices: list[tuple[str, str]]) -> None:
    outputs.write(tmp_path, (REFERENCE, FASTER), complete=True)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["results.csv", "results.html", "results.md"]
    assert "<figure" in (tmp_path / "results.html").read_text()
    assert notices == []


def test_a_page_without_plots_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notices: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr("benchmarks.report_html.svg.find_spec", lambda _: None)
    outputs.write(tmp_path, (REFERENCE, FASTER), complete=False, heading="a run")
    text = (tmp_path / "results.html").read_text()
    assert "data-kind=" not in text
    assert "Incomplete" in text
    ((code, notice),) = notices
    assert code == "plots-unavailable"
    assert notice.startswith("results.html ")
    assert notice.endswith(str(svg.missing()))
    assert html.escape(str(svg.missing())) in text
    assert (tmp_path / "results.md").read_text().startswith("# a run\n")


@pytest.fixture
def notices() -> list[tuple[str, str]]:
    return []


@pytest.fixture(autouse=True)
def _listen(notices: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("rexport")
    monkeypatch.setattr(
        logger, "warning", lambda words, *values, extra: notices.append((extra["code"], words % values))
    )
