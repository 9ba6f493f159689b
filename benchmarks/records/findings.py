"""What an experiment found, as data: a verdict on the paper's claim, a table, panels of lines, and where it comes from.

Every experiment ends in ``Findings``. Files, pictures and the report's section are made from them alone, by one piece
of code for all experiments; so that what was found can be drawn again without being trained again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from runtimes import codec, files
from runtimes.errors import ArtifactError, CompatibilityError, UsageError

SCHEMA_VERSION = 1

Record = TypeVar("Record")
Item = TypeVar("Item")

Experiment = Literal["degradation", "depth", "shortcuts", "responses", "gradients", "identity"]
Outcome = Literal["confirmed", "contradicted", "undecided"]
Scale = Literal["linear", "log"]

PAPER_ITERATIONS = 64_000
"""Updates of the paper's whole schedule (He et al. 2015, section 4.2)."""

CONCLUSIVE_SHARE = 0.1
"""Share of the paper's schedule from which on trained networks can decide a claim. The first drop of the learning rate
comes at half of any schedule, so a tenth leaves 3,200 updates before it; errors of shorter runs still depend on how a
network begins, and deeper networks begin more slowly."""

SUFFIX = ".findings.json"
FILE_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Line:
    """A line of a panel: ``x`` and ``y`` of one length; ``low`` and ``high`` are the ends of a band, the least
    and the most of several seeds, or empty.

    ``family`` decides the colour: lines of one family have one colour. ``dashed`` tells two lines of a family apart, as
    the paper does with training and test error. ``thin`` steps back: one seed of several.
    """

    label: str
    family: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False
    thin: bool = False

    def __post_init__(self) -> None:
        """Raises ``UsageError`` where lengths differ."""
        if len(self.x) != len(self.y):
            raise UsageError(
                f"a line of {len(self.x)} x and {len(self.y)} y: expected as many", code="line-lengths-differ"
            )
        if len(self.low) != len(self.high) or len(self.low) not in (0, len(self.x)):
            raise UsageError(
                f"a band of {len(self.low)} and {len(self.high)} ends: expected {len(self.x)} or none",
                code="band-lengths-differ",
            )


@dataclass(frozen=True)
class Mark:
    """A level that the paper prints, drawn across a panel: "ResNet-20, paper"."""

    label: str
    family: str
    y: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes. ``source`` is the paper's figure that it stands beside, as "Figure 6, left", or empty."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    y_range: tuple[float, float] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a range that no axis has."""
        if self.y_range is None:
            return
        if self.y_range[0] >= self.y_range[1]:
            raise UsageError(f"y_range {self.y_range}: expected the lower end first", code="range-reversed")
        if self.y_scale == "log" and self.y_range[0] <= 0:
            raise UsageError(
                f"y_range {self.y_range} of a logarithmic axis: expected more than 0", code="log-range-not-positive"
            )


@dataclass(frozen=True)
class FindingsTable:
    """Cells as text, row by row under ``headings``; the first column heads its row. The paper's numbers have a table of
    their own, whose caption names their data set: they are of other images."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a row that is not as wide as the headings, or for no headings."""
        if not self.headings:
            raise UsageError("a table without headings", code="table-without-headings")
        for row in self.rows:
            if len(row) != len(self.headings):
                raise UsageError(
                    f"a row of {len(row)} cells under {len(self.headings)} headings", code="table-row-width"
                )

    @classmethod
    def of(cls, caption: str, items: Iterable[Item], columns: Mapping[str, Callable[[Item], str]]) -> FindingsTable:
        """A row for each item; ``columns`` gives each heading with the function that writes the cell under it."""
        return cls(caption, tuple(columns), tuple(tuple(cell(item) for cell in columns.values()) for item in items))


@dataclass(frozen=True)
class Check:
    """One claim of the paper and the measurement beside it.

    Attributes:
        said: the claim.
        source: the section, figure or table of the paper.
        found: the measurement in one sentence.
        outcome: the outcome by the measured numbers alone; ``Findings.outcome_of`` also weighs the training.
        trained: whether the claim is about trained networks, so that a short schedule cannot decide it.
    """

    said: str
    source: str
    found: str
    outcome: Outcome
    trained: bool = True


@dataclass(frozen=True)
class Provenance:
    """What the findings rest on.

    Attributes:
        data: the data set's name for people, as "CIFAR-10, JPEG copies"; or empty where none was used.
        images: counts by part: train, validation, test.
        seeds: the runs' seeds.
        scale: share of the paper's schedule, 1.0 for all of it; ``None`` where nothing was trained.
        until: the iteration that runs had come to which are not finished, the least of them; ``None`` if all are.
        recipe: the recipe in words.
        machine: processor or GPU.
        versions: versions of the libraries that computed.
        command: the command that makes the findings again.
        time: ISO 8601 in UTC.
    """

    data: str
    images: dict[str, int]
    seeds: tuple[int, ...]
    scale: float | None
    recipe: str
    machine: str
    versions: dict[str, str]
    command: str
    time: str
    until: int | None = None

    @property
    def share(self) -> float | None:
        """The share of the paper's schedule that all runs completed; ``None`` where it is not one number."""
        if self.scale is None or self.until is None:
            return self.scale
        return min(self.scale, self.until / PAPER_ITERATIONS)


@dataclass(frozen=True)
class Findings:
    """An experiment's result. ``notes`` say what limits it, a sentence each."""

    experiment: Experiment
    title: str
    checks: tuple[Check, ...]
    panels: tuple[Panel, ...]
    tables: tuple[FindingsTable, ...]
    notes: tuple[str, ...]
    provenance: Provenance
    findings: int = SCHEMA_VERSION

    @property
    def outcome(self) -> Outcome:
        """The outcome of all checks together."""
        return combine_outcomes(map(self.outcome_of, self.checks))

    @property
    def too_short(self) -> bool:
        """Whether the networks were trained for less than ``CONCLUSIVE_SHARE`` of the paper's schedule."""
        share = self.provenance.share
        return share is not None and share < CONCLUSIVE_SHARE

    def outcome_of(self, check: Check) -> Outcome:
        """The outcome of one check: undecided where it is about networks whose training was too short."""
        return "undecided" if check.trained and self.too_short else check.outcome


def combine_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of several comparisons for one claim: contradicted if one is, confirmed if all are."""
    kinds = set(outcomes)
    if "contradicted" in kinds:
        return "contradicted"
    return "confirmed" if kinds == {"confirmed"} else "undecided"


def write(findings: Findings, folder: Path) -> Path:
    """Puts the findings into ``folder`` as ``EXPERIMENT.findings.json``, and gives its path."""
    target = folder / f"{findings.experiment}{SUFFIX}"
    write_record(findings, target)
    return target


def write_record(record: object, path: Path) -> None:
    """Writes a dataclass as indented JSON."""
    with files.write_atomically(path) as temporary:
        temporary.write_text(codec.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Findings:
    """The findings of a file. Raises what ``read_record`` raises."""
    return read_record(Findings, path, "findings", SCHEMA_VERSION, "rbench paper makes such files")


def read_record(cls: type[Record], path: Path, version: str, newest: int, origin: str) -> Record:
    """The dataclass in a file whose field ``version`` holds its schema version; ``origin`` says what makes such files.

    Raises:
        ResourceError: the file cannot be read.
        ArtifactError: the file holds something else.
        CompatibilityError: the file's schema is newer than ``newest``.
    """
    content = files.read_bounded(path, FILE_LIMIT_BYTES)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None  # codec.loads says what is wrong
    number = data.get(version) if isinstance(data, dict) else None
    if isinstance(number, int) and number > newest:
        raise CompatibilityError(
            f"{version} of schema version {number}; this rbench reads up to {newest}",
            code="record-schema-newer",
            path=path,
            hint="pip install --upgrade rexport",
        )
    try:
        return codec.loads(cls, content)
    except ArtifactError as error:
        raise ArtifactError(error.what, code=error.code, path=path, hint=origin) from error


def list_findings_files(folder: Path) -> tuple[Path, ...]:
    """The files of findings that lie in the folder, by name."""
    return tuple(sorted(folder.glob(f"*{SUFFIX}")))


def floats(values: Iterable[float]) -> tuple[float, ...]:
    """What a library's scalars are, as JSON has them."""
    return tuple(float(value) for value in values)
