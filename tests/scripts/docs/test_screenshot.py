from __future__ import annotations

import io
import lzma
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from runtimes.errors import BackendUnavailableError, ResourceError
from scripts.docs import chromium, screenshot
from tests.refusals import refuses

RESULTS = Path(__file__).parents[2] / "fixtures" / "version-0.1" / "results" / "demo" / "results.jsonl.xz"


@pytest.fixture
def installed() -> None:
    if (reason := chromium.missing()) is not None:
        pytest.skip(reason)


@pytest.mark.usefixtures("installed")
def test_a_picture_shows_the_page_down_to_its_table(tmp_path: Path) -> None:
    picture, rows = tmp_path / "report.png", tmp_path / "results.jsonl"
    rows.write_bytes(lzma.decompress(RESULTS.read_bytes()))
    done = CliRunner().invoke(screenshot.main, [str(tmp_path), "-o", str(picture)], catch_exceptions=False)
    assert done.stdout == f"{picture}\n"
    assert picture.stat().st_size <= screenshot.LIMIT_BYTES
    with Image.open(picture) as image:
        assert image.width == screenshot.WIDTH
        assert 300 < image.height < 1500
        colours = image.convert("RGB").getcolors(1 << 16)
    assert colours is not None
    assert max(colours)[1] == (255, 255, 255)
    assert len(colours) > 20


@pytest.mark.usefixtures("installed")
def test_a_picture_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("<table class='main'><tr><td>1</td></tr></table>", encoding="utf-8")
    assert Image.open(io.BytesIO(screenshot.take(page))).height < 100
    monkeypatch.setattr(screenshot, "LIMIT_BYTES", 10)
    with refuses(ResourceError, "picture-too-large"):
        screenshot.take(page)


def test_without_a_browser_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with refuses(BackendUnavailableError, "browser-missing", "make browser"):
        screenshot.take(tmp_path)
