from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.records.findings import Findings, Line, Mark, Panel
from benchmarks.report.findings import describe_provenance
from benchmarks.report_html import findings_plots
from benchmarks.report_html import svg as canvas
from benchmarks.report_html.svg import SERIES
from runtimes.errors import BackendUnavailableError, ResourceError
from tests.benchmarks.paper.samples import degradation, responses
from tests.refusals import refuses

X = (1.0, 2.0, 3.0, 4.0)


def of(*panels: Panel) -> Findings:
    return replace(responses(), panels=panels)


def panel(*lines: Line, **changes: object) -> Panel:
    return replace(Panel("title", "x", "y", lines), **changes)  # type: ignore[arg-type]


def drawn(*lines: Line, **changes: object) -> str:
    """The SVG of one panel."""
    (plot,) = findings_plots.plots(of(panel(*lines, **changes)), "p")
    return plot.svg


def strokes(svg: str, colour: str) -> list[str]:
    """The styles of what is drawn with a line of that placeholder's colour."""
    styles = re.findall(r'style="([^"]*)"', svg)
    return [style for style in styles if f"stroke: {canvas.VARIABLES[colour]}" in style]


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_each_panel_is_a_plot_that_says_what_it_stands_beside() -> None:
    plots = list(findings_plots.plots(degradation(), "f0"))
    assert [(plot.kind, plot.title) for plot in plots] == [
        ("degradation", "Plain nets"),
        ("degradation", "Residual nets"),
    ]
    words = [re.findall(r"(Figure 6, \w+|Thin|Bands|Dotted)\b", plot.caption) for plot in plots]
    assert words == [["Figure 6, left", "Thin", "Bands"], ["Figure 6, middle", "Thin", "Bands", "Dotted"]]
    (spoken,) = re.findall(r'aria-label="([^"]*)"', plots[1].svg)
    assert spoken.startswith("Residual nets. ")
    assert re.search(r"resnet20, test ends at \d\.\d+", spoken)
    assert "seed" not in spoken
    assert "resnet110, paper 6.43" in spoken


def test_a_family_has_one_colour_in_all_panels() -> None:
    a, b, c = (Line(name, name, X, X) for name in "abc")
    look = findings_plots.paint(of(panel(a, b), panel(c, a, marks=(Mark("d, paper", "d", 2),))))
    assert [look.colour(family) for family in "abcd"] == list(SERIES[:4])
    first, second = findings_plots.plots(of(panel(a, b), panel(c, a)), "p")
    assert strokes(first.svg, SERIES[0])
    assert strokes(second.svg, SERIES[0])
    assert strokes(first.svg, SERIES[1])
    assert not strokes(second.svg, SERIES[1])
    assert strokes(second.svg, SERIES[2])


def test_markers_distinguish_families_beyond_the_colours() -> None:
    lines = [Line(str(number), str(number), tuple(range(30)), tuple(range(30))) for number in range(10)]
    look = findings_plots.paint(of(panel(*lines)))
    styles = {(look.colour(line.family), look.marker(line.family)) for line in lines}
    assert len(styles) == 10
    assert "markevery" not in look.line(lines[0])
    assert look.line(lines[8])["marker"] == "s"


def test_dashed_is_dashed_and_thin_is_thin() -> None:
    plain, dashed, thin = (
        Line("a, test", "a", X, X),
        Line("a, training", "a", X, X, dashed=True),
        Line("a, seed 0", "a", X, X, thin=True),
    )
    assert not any("dasharray" in style for style in strokes(drawn(plain), SERIES[0]))
    assert any("stroke-dasharray" in style for style in strokes(drawn(dashed), SERIES[0]))
    width = r"stroke-width: ([\d.]+)"
    widths = [float(found[1]) for style in strokes(drawn(thin), SERIES[0]) if (found := re.search(width, style))]
    assert max(widths) < 1


def test_a_band_is_filled_and_lies_on_both_sides() -> None:
    without = drawn(Line("a", "a", X, X))
    band = drawn(Line("a", "a", X, X, (0.0, 1.0, 2.0, 3.0), (2.0, 3.0, 4.0, 5.0)))
    filled = rf'style="fill: {re.escape(canvas.VARIABLES[SERIES[0]])}; fill-opacity: 0.16"'
    assert re.search(filled, band)
    assert not re.search(filled, without)
    assert {"0", "5"} <= set(texts(band)) - set(texts(without))  # ticks: the axis reaches to the ends of the band


def test_the_papers_levels_are_dotted_and_named_in_range() -> None:
    marks = (Mark("net-20, paper", "net-20", 2), Mark("net-56", "net-56", 3), Mark("outside", "net-56", 9))
    svg = drawn(Line("net-20", "net-20", X, X), marks=marks, y_range=(0, 5))
    assert {"net-20", "net-56", "the paper"} <= set(texts(svg))
    assert "outside" not in texts(svg)
    assert any("dasharray: 1.2,1.92" in style for style in strokes(svg, SERIES[1]))
    without = drawn(Line("net-20", "net-20", X, X), y_range=(0, 5))
    assert "the paper" not in texts(without)
    assert not strokes(without, SERIES[1])


def test_a_level_that_is_not_the_papers_is_not_called_so() -> None:
    svg = drawn(Line("a", "a", X, X), marks=(Mark("b, built", "b", 2),))
    assert "the paper" not in texts(svg)
    assert "b, built" in texts(svg)
    assert "Dotted" not in findings_plots.caption(panel(marks=(Mark("b, built", "b", 2),)))


def test_close_levels_are_named_one_under_the_other() -> None:
    names = [f"net{number}" for number in range(5)]
    marks = tuple(Mark(f"{name}, paper", name, 2 + 0.01 * number) for number, name in enumerate(names))
    svg = drawn(Line("a", "a", X, X), marks=marks)
    heights = [float(found[1]) for name in names for found in re.finditer(rf'y="([\d.]+)" [^>]*>{name}<', svg)]
    assert len(heights) == 5
    assert np.all(np.diff(heights) < -9)


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([], []),
        ([5.0], [5.0]),
        ([0.0, 50.0, 100.0], [0.0, 50.0, 100.0]),
        ([50.0, 50.0], [45.0, 55.0]),
        ([50.0, 52.0, 54.0], [42.0, 52.0, 62.0]),
        ([1.0, 2.0], [0.0, 10.0]),
        ([99.0, 99.0, 99.0], [80.0, 90.0, 100.0]),
        ([10.0, 12.0, 80.0, 80.0], [6.0, 16.0, 75.0, 85.0]),
    ],
)
def test_names_stay_where_they_belong_and_apart(wanted: list[float], places: list[float]) -> None:
    np.testing.assert_allclose(findings_plots.spread(wanted, 10, 100), places)


def test_the_legend_does_not_grow_with_seeds() -> None:
    labels = [
        list(findings_plots.legend_entries(found.panels, findings_plots.paint(found)))
        for found in (degradation((0,)), degradation(tuple(range(20))))
    ]
    assert labels[0] == labels[1]
    networks = ["plain20", "plain56", "resnet20", "resnet56"]
    assert labels[0] == [*networks, "test", "training", "single seeds", "the paper"]


def test_labels_that_tell_more_are_all_in_the_legend() -> None:
    found = responses()
    labels = list(findings_plots.legend_entries(found.panels, findings_plots.paint(found)))
    assert labels == ["plain20", "resnet20", "plain56", "resnet56", "plain110", "resnet110"]


def test_two_families_with_one_label_and_seeds_alone() -> None:
    same = [Line("error", family, X, X) for family in "ab"]
    seeds = [Line(f"c, seed {number}", "c", X, X, thin=True) for number in range(9)]
    found = of(panel(*same, *seeds))
    labels = list(findings_plots.legend_entries(found.panels, findings_plots.paint(found)))
    assert labels == ["a, error", "b, error", "c"]


def test_a_label_dashed_in_one_panel_is_explained_by_colour() -> None:
    dashed, whole = (Line("after 10", "after 10", X, X, dashed=one) for one in (True, False))
    for found in (of(panel(dashed), panel(whole)), of(panel(whole), panel(dashed))):
        (style,) = findings_plots.legend_entries(found.panels, findings_plots.paint(found)).values()
        assert style["linestyle"] == "-"
    (style,) = findings_plots.legend_entries((panel(dashed),), findings_plots.paint(of(panel(dashed)))).values()
    assert style["linestyle"] == findings_plots.DASHED


def test_the_range_is_kept_and_scales_are_logarithmic() -> None:
    steep = Line("a", "a", (1.0, 10.0, 100.0, 1000.0), (1e-4, 1e-2, 1.0, 100.0))
    assert {"1", "10", "100", "1,000", "0.01", "1e-06"} & set(texts(drawn(steep, x_scale="log", y_scale="log"))) >= {
        "10",
        "0.01",
    }
    clipped = texts(drawn(steep, y_range=(0, 5)))
    assert "5" in clipped
    assert "100" not in clipped[8:]


def test_places_that_are_whole_numbers_have_such_ticks() -> None:
    layers = Line("a", "a", tuple(map(float, range(1, 20))), (1.0,) * 19)
    assert {"5", "10"} <= set(texts(drawn(layers)))
    assert "2.5" not in texts(drawn(layers))
    shares = Line("a", "a", (0.0, 0.5, 1.0), (1.0,) * 3)
    assert "0.2" in texts(drawn(shares))


def test_zeros_on_a_logarithmic_axis_and_nothing_at_all() -> None:
    zeros = Line("a", "a", (0.0, 1.0, 2.0, 3.0), (0.0, 0.0, 0.0, 0.0))
    assert drawn(zeros, x_scale="log", y_scale="log")
    assert drawn(Line("a", "a", X, (0.0, 1.0, 2.0, 3.0), (-1.0, 0.5, 1, 2), (1, 2, 3, 4)), y_scale="log")
    assert drawn(y_scale="log")
    assert drawn(Line("a", "a", (), ()), Line("b", "b", (1.0,), (1.0,)))


def test_long_and_foreign_text_is_cut_and_escaped() -> None:
    name = "<script>$x$ " + "y" * 300
    svg = drawn(Line(name, name, X, X), title=name, x_label=name, y_label="a\tb\nc", marks=(Mark(name, name, 2),))
    assert "<script" not in svg
    assert "&lt;script&gt;$x$" in svg
    assert r"a\tb\nc" in svg
    assert max(map(len, texts(svg))) < 60


def test_pictures_are_the_same_bytes_again(tmp_path: Path) -> None:
    found = degradation((0,))
    for folder in ("again", "other"):
        (tmp_path / folder).mkdir()
    written = findings_plots.write_pictures(found, tmp_path)
    assert written == (tmp_path / "degradation.svg", tmp_path / "degradation.png")
    again = findings_plots.write_pictures(found, tmp_path / "again")
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    other = findings_plots.write_pictures(degradation((1,)), tmp_path / "other")[0]
    assert other.read_bytes() != written[0].read_bytes()


def test_pictures_are_whole_in_plain_colours_on_white(tmp_path: Path) -> None:
    svg, png = findings_plots.write_pictures(degradation((0,)), tmp_path)
    text = svg.read_text()
    assert not re.findall(r"#0[1-5]0[0-4]0\w|var\(", text)
    assert "<dc:date>" not in text
    shade = canvas.shades()
    assert shade[canvas.PAPER] == "#ffffff"
    assert all(shade[colour] in text for colour in SERIES[:4])
    assert {"Plain nets", "resnet110", "the paper"} <= set(texts(text))
    assert any("Figure 6, left" in words for words in texts(text))
    assert describe_provenance(degradation((0,)).provenance)[:30] in text
    with Image.open(png) as image:
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert "Software" not in image.info
        assert image.size[0] == 2 * canvas.WIDTH_IN * 150
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        line = tuple(int(shade[SERIES[0]][at : at + 2], 16) for at in (1, 3, 5))
        assert (np.asarray(image.convert("RGB")) == line).all(axis=-1).sum() > 200


def test_three_panels_and_none(tmp_path: Path) -> None:
    found = responses()
    three = replace(found, panels=(*found.panels, found.panels[0]))
    svg, _ = findings_plots.write_pictures(three, tmp_path)
    assert texts(svg.read_text()).count("Layers in order") == 2
    assert findings_plots.write_pictures(replace(found, panels=()), tmp_path / "nowhere") == ()


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report_html.svg.find_spec", lambda _: None)
    with refuses(BackendUnavailableError, "matplotlib-missing", "pictures", canvas.INSTALL):
        findings_plots.write_pictures(degradation(), tmp_path)
    with refuses(BackendUnavailableError, "matplotlib-missing", "plots"):
        next(findings_plots.plots(degradation(), "p"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with refuses(ResourceError, "file-access-failed", "nowhere"):
        findings_plots.write_pictures(
            replace(degradation((0,)), panels=degradation((0,)).panels[:1]), tmp_path / "nowhere"
        )
