"""The top of a report's page as a picture: ``python -m scripts.docs.screenshot RESULTS``.

RESULTS is a folder of ``rbench run -o``. The picture shows the answer, the badges, the bars and the table in light
colours, 1,200 pixels wide. RESULTS may also be a page, as of ``rbench tune --page``, of which all is shown.
"""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path

import click

from exporter.commands import terminal
from runtimes.errors import BackendUnavailableError, ResourceError
from runtimes.files import write_atomically
from scripts.docs import chromium

WIDTH, MARGIN = 1200, 12
"""Pixels of the picture, and below the table."""

LIMIT_BYTES = 200_000

PICTURE = Path("docs/images/report.png")


@click.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True))
@click.option("--width", type=click.IntRange(200, 4000), default=WIDTH, show_default=True, help="Pixels.")
@click.option(
    "-o", "picture", type=click.Path(path_type=Path), default=PICTURE, show_default=True, help="File to write."
)
@terminal.debug_option
def main(results: Path, width: int, picture: Path) -> None:
    """Write a picture of the page of RESULTS, and print its path."""
    with tempfile.TemporaryDirectory() as folder:
        page = results
        if results.is_dir():
            page = Path(folder) / "report.html"
            page.write_text(_page(results), encoding="utf-8")
        content = take(page, width)
    with write_atomically(picture) as temporary:
        temporary.write_bytes(content)
    click.echo(picture)


def _page(results: Path) -> str:
    from benchmarks.analysis.figures import Figures
    from benchmarks.records import store
    from benchmarks.report.document import report_document
    from benchmarks.report_html.page import html

    return html(report_document(Figures.of_all(store.read(store.find_results_file(results)))))


def take(page: Path, width: int = WIDTH) -> bytes:
    """The page down to its main table, or all of it where there is none, as a PNG file of at most ``LIMIT_BYTES``.

    Raises:
        BackendUnavailableError: there is no Chromium.
        ResourceError: the picture is larger.
    """
    from PIL import Image

    if (reason := chromium.missing()) is not None:
        raise BackendUnavailableError(f"no picture: {reason}", code="browser-missing")
    with chromium.browser() as driver:
        chromium.resize(driver, width)
        chromium.prefer(driver, "light")
        driver.get(page.resolve().as_uri())
        shown = "(document.querySelector('table.main') || document.body).getBoundingClientRect().bottom"
        bottom = chromium.run(driver, shown)
        clip = {"x": 0, "y": 0, "width": width, "height": round(bottom) + MARGIN, "scale": 1}
        shot = chromium.command(driver, "Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    colours = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB").quantize(256)
    out = io.BytesIO()
    colours.save(out, "PNG", optimize=True)
    if len(out.getvalue()) > LIMIT_BYTES:
        raise ResourceError(
            f"the picture has {len(out.getvalue()):,} bytes, and {LIMIT_BYTES:,} are allowed", code="picture-too-large"
        )
    return out.getvalue()


if __name__ == "__main__":
    main()
