from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from benchmarks import page
from tests.benchmarks.rows import FASTER, ON_A_GPU, REFERENCE, SKIPPED


class Reader(HTMLParser):
    """Reads a page strictly: what is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_holds_the_tables_and_stands_alone() -> None:
    read = Reader(page.html((REFERENCE, FASTER, SKIPPED), "rbench"))
    assert read.tags.count("table") == 3
    assert {"p50 ms", "0.410 [0.405–0.416]", "93.49 [93.0–94.0]"} <= set(read.texts)
    assert "openvino fp32, batch 1: skipped: openvino is not installed" in read.texts
    assert not {"script", "link", "img"} & set(read.tags)
    assert "device" in Reader(page.html((ON_A_GPU,), "rbench")).texts


def test_foreign_text_cannot_become_part_of_the_page() -> None:
    text = page.html([replace(SKIPPED, subject="<b>net</b>", reason="<script>&")], "a < b")
    assert not {"b", "script"} & set(Reader(text).tags)
    assert "&lt;script&gt;&amp;" in text


def test_an_interrupted_run_says_so() -> None:
    assert "Incomplete" in page.html((REFERENCE,), "rbench", complete=False)
    assert "Incomplete" not in page.html((REFERENCE,), "rbench")
