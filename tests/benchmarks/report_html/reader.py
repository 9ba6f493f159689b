"""A page of rbench report as text, read strictly."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "input"}
CELLS = {"td", "th"}


class Reader(HTMLParser):
    """Reads a page strictly: what is opened is closed, in order, and no identifier comes twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.kinds: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in CELLS:
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)
        self._note(attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._note(attributes)

    def _note(self, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "xlink:href", "srcset", "action"):
                self.addresses.append(value or "")
            elif name == "data-kind":
                self.kinds.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if CELLS & set(self.open):
            self.cells[-1] += data
