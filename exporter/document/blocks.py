"""Documents as data: blocks in the order of a terminal. Renderers define how each kind of block looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Literal, TypeAlias, TypeVar

from exporter.format import ABSENT

Kind: TypeAlias = Literal["note", "warning", "failure"]
"""The kind of a remark: an explanation, a reason to doubt figures, or the reason why figures are missing."""

PLAIN_WIDTH = 100
"""The default width in columns of a document in a file or a pipe."""


class Block:
    """A part of a document. A renderer skips the kinds of blocks that it does not know, as a terminal skips plots."""


B = TypeVar("B", bound=Block)


@dataclass(frozen=True)
class Sentence(Block):
    """A paragraph of one or two sentences.

    Attributes:
        text: The text.
        role: ``headline`` for the main result, ``aside`` for a less important paragraph.
        outcome: The word by which the style sheet of a page colours a headline.
    """

    text: str
    role: Literal["plain", "headline", "aside"] = "plain"
    outcome: str = ""


@dataclass(frozen=True)
class Remark(Block):
    """A remark on the figures.

    Attributes:
        text: The text, which may change between versions.
        kind: The kind of the remark.
        code: The stable code of the problem.
    """

    text: str
    kind: Kind = "note"
    code: str = ""


@dataclass(frozen=True)
class TableColumn:
    """The head of a column.

    Attributes:
        heading: The text.
        left: Whether cells are aligned left, as text is. Numbers are aligned right.
        unbroken: Whether cells are never wrapped.
        priority: A narrow terminal first leaves out the columns of the highest number, but never those of 0. A narrow
            page hides all others until the reader asks for them.
        stacked: Whether a narrow page puts the cells under the head of their row.
    """

    heading: str
    left: bool = False
    unbroken: bool = False
    priority: int = 0
    stacked: bool = False


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        cells: The texts, one for each column.
        attributes: The values for the filters of a page: ``backend``, ``precision`` and ``words``.
        state: ``best`` is highlighted. ``missing`` has no numbers and appears only on a page. ``strong`` is the heading
            of the rows below it. ``total`` is the sum of the rows above it.
    """

    cells: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    state: Literal["", "best", "missing", "strong", "total"] = ""


@dataclass(frozen=True)
class Table(Block):
    """A table of texts.

    Attributes:
        columns: The heads of the columns.
        rows: The rows.
        caption: The text above the table in all renderings.
        label: The text above the table on a page only.
        name: The word by which the style sheet and the scripts of a page identify the table.
        aside: Whether the table is less important than the blocks before it.
        elsewhere: A sentence that says where to find the columns that a narrow terminal leaves out.
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
        """The headings of all columns."""
        return tuple(column.heading for column in self.columns)

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The texts of all rows."""
        return tuple(row.cells for row in self.rows)

    def drop_empty(self) -> Table:
        """Return the table without columns in which each cell is ``ABSENT``."""
        return self._with([any(cell != ABSENT for cell in cells) for cells in zip(*self.cells, strict=True)])

    def narrow(self) -> Table:
        """Return the table without ``missing`` rows, which have remarks, and then without empty columns."""
        present = tuple(row for row in self.rows if row.state != "missing")
        return self if present == self.rows else replace(self, rows=present).drop_empty()

    def leave_out(self) -> Table:
        """Return the table without the last column of the highest priority number.

        If all columns have priority 0, the table itself is returned.
        """
        highest = max(column.priority for column in self.columns)
        if highest == 0:
            return self
        last = max(index for index, column in enumerate(self.columns) if column.priority == highest)
        return self._with([index != last for index in range(len(self.columns))])

    def _with(self, kept: Sequence[bool]) -> Table:
        rows = tuple(replace(row, cells=tuple(compress(row.cells, kept))) for row in self.rows)
        return replace(self, columns=tuple(compress(self.columns, kept)), rows=rows)


@dataclass(frozen=True)
class Verdict(Block):
    """A claim and whether the findings support it.

    Attributes:
        outcome: The result in one word.
        claim: The claim.
        source: The place of the claim, for example a table of a paper. It may be empty.
        found: The finding.
    """

    outcome: str
    claim: str
    source: str
    found: str


@dataclass(frozen=True)
class Definitions(Block):
    """Names with their definitions.

    Attributes:
        pairs: The (name, definition) pairs.
        brief: One line that replaces all definitions in a narrow rendering.
    """

    pairs: tuple[tuple[str, str], ...]
    brief: str = ""


@dataclass(frozen=True)
class Command(Block):
    """A command line for a shell.

    Attributes:
        text: The command line.
    """

    text: str


@dataclass(frozen=True)
class Folded(Block):
    """Blocks that the reader of a page can unfold.

    Attributes:
        summary: The text of the fold.
        blocks: The blocks inside.
    """

    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section(Block):
    """Blocks under a title.

    Attributes:
        title: The title. If it is empty, the blocks continue the section before.
        blocks: The blocks.
        more: The summary of the fold in which Markdown puts less important blocks. If it is empty, Markdown uses that
            of the document.
        appendix: Whether the section is about the whole document, such as the description of the machine.
    """

    title: str
    blocks: tuple[Block, ...]
    more: str = ""
    appendix: bool = False

    def all_of(self, kind: type[B]) -> tuple[B, ...]:
        """Return the blocks of a kind, including those in folds of this section."""
        parts = (block.blocks if isinstance(block, Folded) else (block,) for block in self.blocks)
        return tuple(block for blocks in parts for block in blocks if isinstance(block, kind))


@dataclass(frozen=True)
class Summary(Block):
    """The result of the whole document. A terminal shows it last, a page first.

    Attributes:
        remarks: The remarks.
        title: The title, which may be empty.
    """

    remarks: tuple[Remark, ...]
    title: str = ""


@dataclass(frozen=True)
class Legend(Block):
    """Explanations of table columns.

    Attributes:
        entries: The (term, explanation) pairs. The term of a sentence that explains none is empty.
    """

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Document:
    """The whole output of a command.

    Attributes:
        title: The title.
        blocks: The blocks in the order of a terminal.
        about: The time and the machine, as one line under the title of a page.
        more: The summary of the fold in which Markdown puts legends and appendices.
        plain_width: The width in columns in a file or a pipe.
    """

    title: str
    blocks: tuple[Block, ...]
    about: str = ""
    more: str = ""
    plain_width: int = PLAIN_WIDTH

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections in their order."""
        return tuple(block for block in self.blocks if isinstance(block, Section))

    @property
    def summary(self) -> Summary:
        """The first summary, or an empty one."""
        return next((block for block in self.blocks if isinstance(block, Summary)), Summary(()))

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """The entries of all legends."""
        return tuple(entry for block in self.blocks if isinstance(block, Legend) for entry in block.entries)
