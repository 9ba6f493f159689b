"""Text from files for each output: nothing in it acts or hides, and letters of all scripts stay."""

from __future__ import annotations

import csv
import html
import io
import json
import shlex
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import ArtifactError, quote
from runtimes.escaping import MAX_LINE, csv_cell, html_text, json_text, log_value, printable, shell_word

ACTS = st.sampled_from(
    ["\x1b[2J", "\x1b]8;;https://example.org\x07", "\n", "\r", "\t", "\x00", "\x7f", "\x9b2J", "\u202e", "\u2066",
     "\u200b", "\u2060", "\ufeff", "\u00ad", "\u200d", "\u200c", "\ufe0f", "\u3164", "\U000e0041", "\ud800", "\u2028",
     "👩", "🔬", "क्", "می", "é", "漢", "=1", ";=", "\xa0", "a", " ", "\\", "'", '"', "<", "&"]
)  # fmt: skip
HOSTILE = st.lists(ACTS | st.characters(), max_size=12).map("".join)

READABLE = (
    "é",
    "Käse",
    "中文 標籤",
    "漢字かな",
    "한국어",
    "عربى",
    "می‌خواهم",
    "हिन्दी क्‍ष",
    "👩‍🔬",
    "👩🏽‍🔬",
    "🏳️‍🌈",
    "❤️",
    "1️⃣",
    "‼️",
    "A→B ±5 µm",
)


def hides(character: str) -> bool:
    """By the categories of Unicode, without what the module itself knows."""
    return (
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        and character not in "\u200c\u200d"
    )


@given(HOSTILE)
def test_a_line_holds_nothing_that_acts_or_hides(text: str) -> None:
    line = printable(text)
    assert not any(map(hides, line))
    assert line.isascii() or not text.isascii()
    assert printable(line) == line
    assert printable(text, 40) == printable(printable(text, 40), 40)
    assert len(printable(text, 40)) <= 40


@pytest.mark.parametrize("text", READABLE)
def test_letters_and_emoji_of_all_scripts_stay(text: str) -> None:
    assert printable(text) == text
    assert quote(text) == text
    assert html.unescape(html_text(text)) == text
    assert csv_cell(text) == text


@pytest.mark.parametrize(
    "text", ["a\u200db", "a\u200cb", "\u200d", "🔬\u200d", "a\ufe0f", "漢\u200d字", "\u3164", "a\u034fb", "\u2800"]
)
def test_what_changes_nothing_that_is_seen_is_escaped(text: str) -> None:
    assert printable(text) != text


def test_no_character_of_unicode_moves_a_cursor() -> None:
    everything = "".join(map(chr, [*range(0x20000), *range(0xE0000, 0xE0200)]))
    assert not any(map(hides, printable(everything)))


def test_long_text_is_cut_with_its_length() -> None:
    assert printable("x" * 100_000, 200).endswith("x… (100,000 characters)")
    assert len(str(ArtifactError(f"a value of {'x' * 100_000}", hint="y" * 100_000))) == MAX_LINE
    assert str(ArtifactError("a\x1b[2J\nb")) == r"a\x1b[2J\nb"


def test_quotation_marks_escape_nothing_again() -> None:
    assert f"{quote('a' + chr(10))!r} {quote('it' + chr(39) + 's')!r}" == r"""'a\n' "it's" """.rstrip()


@given(HOSTILE)
def test_json_keeps_its_value(text: str) -> None:
    shown = json_text(json.dumps({"x": text}, ensure_ascii=False, indent=1))
    assert json.loads(shown) == json.loads(json.dumps({"x": text}))
    assert not any(map(hides, shown.replace("\n", "")))


@given(HOSTILE)
def test_html_has_no_markup(text: str) -> None:
    assert not set("<>\"'") & set(html_text(text))
    assert html.unescape(html_text(text)) == printable(text)


@given(HOSTILE)
def test_a_shell_takes_one_word(text: str) -> None:
    assert shlex.split(shell_word(text)) == [printable(text)]


@given(HOSTILE)
def test_a_log_line_can_be_read_again(text: str) -> None:
    value = log_value(text)
    assert not any(map(hides, value))
    if value.startswith('"'):
        assert json.loads(value) == json.loads(json.dumps(text))
    else:
        assert value == text
        assert not set(' "=') & set(value)


FORMULAS = (
    "=1+1",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\n=1",
    "＝1",
    "-",
    "=cmd|' /C calc'!A0",
    "\x00=1",
)


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula(text: str) -> None:
    assert str(csv_cell(text)).startswith(("'", "\\x00"))


def test_no_text_begins_one_where_semicolons_part_cells() -> None:
    assert csv_cell("a;=1+1") == "a;'=1+1"


@pytest.mark.parametrize("number", [-1, -0.5, 1e-9, 3, "-5", "+0.5", "-1.5e-3", "-12%", True])
def test_numbers_stay_numbers(number: object) -> None:
    assert csv_cell(number) is number or csv_cell(number) == number


@given(st.lists(HOSTILE, min_size=1, max_size=4))
def test_a_row_of_csv_is_a_line(cells: list[str]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(map(csv_cell, cells))
    assert out.getvalue().count("\n") == 1
    (row,) = csv.reader(io.StringIO(out.getvalue()))
    assert len(row) == len(cells)
    assert not any(cell.lstrip()[:1] in tuple("=+@") for cell in row if cell.strip())
