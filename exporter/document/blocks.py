"""A document as data: blocks in the order in which a terminal shows them. Renderers decide how each kind looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Literal, TypeAlias, TypeVar

from exporter.format import ABSENT

Kind: TypeAlias = Literal["note", "warning", "failure"]
"""Of a remark: whether figures are only explained, or are to be doubted, or are missing."""

PLAIN_WIDTH = 100
"""Columns of a document that goes to a file or a pipe."""


class Block:
    """Anything that a document says. Renderers pass over kinds that they do not know, as a terminal does plots."""


B = TypeVar("B", bound=Block)


@dataclass(frozen=True)
class Sentence(Block):
    """A paragraph of one sentence or two.

    Attributes:
        role: a headline says what came of it; an aside stands back.
        outcome: a word by which a page's style sheet colours a headline.
    """

    text: str
    role: Literal["plain", "headline", "aside"] = "plain"
    outcome: str = ""


@dataclass(frozen=True)
class Remark(Block):
    """What must be known beside the figures. ``code`` names the problem; the text may change."""

    text: str
    kind: Kind = "note"
    code: str = ""


@dataclass(frozen=True)
class TableColumn:
    """The head of a column.

    Attributes:
        left: text stands at the left, numbers at the right.
        unbroken: its cells are never wrapped.
        priority: on a narrow terminal the columns of the highest number are left out first; those of 0 never are. A
            narrow page hides all others until its reader asks for them.
        stacked: on a narrow page its cells stand under the head of their row.
    """

    heading: str
    left: bool = False
    unbroken: bool = False
    priority: int = 0
    stacked: bool = False


@dataclass(frozen=True)
class TableRow:
    """The cells of a line.

    Attributes:
        attributes: what a page's filters look at: ``backend``, ``precision`` and ``words``.
        state: ``best`` is marked; ``missing`` has no numbers, and stands only where there is room for its remark too;
            ``strong`` heads the lines beneath it; ``total`` sums up those above.
    """

    cells: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    state: Literal["", "best", "missing", "strong", "total"] = ""


@dataclass(frozen=True)
class Table(Block):
    """Cells as text.

    Attributes:
        caption: stands over the table everywhere.
        label: stands over it on a page, which has room for it.
        name: a word by which a page's style sheet and scripts know it.
        aside: less important than what stands before it.
        elsewhere: a sentence that says where the columns are that a narrow terminal leaves out.
    """

    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    caption: str = ""
    label: str = ""
    name: str = ""
    aside: bool = False
    elsewhere: str = ""

    @property
    def headings(self) -> tuple[str, ...]:
        """Of all columns."""
        return tuple(column.heading for column in self.columns)

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """Row by row."""
        return tuple(row.cells for row in self.rows)

    def drop_empty(self) -> Table:
        """The table without the columns in which nothing stands."""
        return self._with([any(cell != ABSENT for cell in cells) for cells in zip(*self.cells, strict=True)])

    def narrow(self) -> Table:
        """The table without rows that are missing, whose remarks tell of them, and without the columns that are empty
        then."""
        there = tuple(row for row in self.rows if row.state != "missing")
        return self if there == self.rows else replace(self, rows=there).drop_empty()

    def leave_out(self) -> Table:
        """The table without the column of the highest priority number; the last of several. The table itself if all
        its columns have priority 0."""
        highest = max(column.priority for column in self.columns)
        if highest == 0:
            return self
        last = max(place for place, column in enumerate(self.columns) if column.priority == highest)
        return self._with([place != last for place in range(len(self.columns))])

    def _with(self, kept: Sequence[bool]) -> Table:
        rows = tuple(replace(row, cells=tuple(compress(row.cells, kept))) for row in self.rows)
        return replace(self, columns=tuple(compress(self.columns, kept)), rows=rows)


@dataclass(frozen=True)
class Verdict(Block):
    """A claim, where it stands, what was found, and the outcome in a word."""

    outcome: str
    claim: str
    source: str
    found: str


@dataclass(frozen=True)
class Definitions(Block):
    """Names and what they are. ``brief`` is the line that stands for all of them where there is little room."""

    pairs: tuple[tuple[str, str], ...]
    brief: str = ""


@dataclass(frozen=True)
class Command(Block):
    """A command line, as a shell takes it."""

    text: str


@dataclass(frozen=True)
class Folded(Block):
    """Blocks that a reader of a page unfolds."""

    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section(Block):
    """Blocks under a title, or more of the section before where there is none.

    Attributes:
        more: the summary under which Markdown folds what is not of first importance; empty for the document's own.
        appendix: it belongs to the whole document, as the machine does.
    """

    title: str
    blocks: tuple[Block, ...]
    more: str = ""
    appendix: bool = False

    def all_of(self, kind: type[B]) -> tuple[B, ...]:
        """The blocks of a kind, folded ones too."""
        parts = (block.blocks if isinstance(block, Folded) else (block,) for block in self.blocks)
        return tuple(block for blocks in parts for block in blocks if isinstance(block, kind))


@dataclass(frozen=True)
class Summary(Block):
    """What came of the whole: last on a terminal, first on a page."""

    remarks: tuple[Remark, ...]
    title: str = ""


@dataclass(frozen=True)
class Legend(Block):
    """Lines that explain the columns."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """All that a command has to say.

    Attributes:
        about: when and where, in a line under the title of a page.
        more: the summary under which Markdown folds legend and appendices.
        plain_width: columns where it goes to a file or a pipe.
    """

    title: str
    blocks: tuple[Block, ...]
    about: str = ""
    more: str = ""
    plain_width: int = PLAIN_WIDTH

    @property
    def sections(self) -> tuple[Section, ...]:
        """In their order."""
        return tuple(block for block in self.blocks if isinstance(block, Section))

    @property
    def summary(self) -> Summary:
        """The one that it has, or an empty one."""
        return next((block for block in self.blocks if isinstance(block, Summary)), Summary(()))

    @property
    def legend(self) -> tuple[str, ...]:
        """The lines that explain the columns of all tables."""
        return tuple(line for block in self.blocks if isinstance(block, Legend) for line in block.lines)
