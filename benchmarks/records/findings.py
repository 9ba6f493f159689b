"""The findings of an experiment as data: verdicts on the paper's claims, tables, panels of lines, and their origin.

Every experiment ends in ``Findings``. Files, pictures and the section of the report are made from findings alone, so
that they can be drawn again without training again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from runtimes import codec, files
from runtimes.errors import ArtifactError, CompatibilityError, UsageError

SCHEMA_VERSION = 1
"""The newest schema version of a file of findings."""

Record = TypeVar("Record")
Item = TypeVar("Item")

Experiment = Literal["degradation", "depth", "shortcuts", "responses", "gradients", "identity"]
Outcome = Literal["confirmed", "contradicted", "undecided"]
Scale = Literal["linear", "log"]

PAPER_ITERATIONS = 64_000
"""The iterations of the paper's whole schedule (He et al. 2015, section 4.2)."""

CONCLUSIVE_SHARE = 0.1
"""The smallest share of the paper's schedule at which trained networks can decide a claim.

The learning rate drops first at half of any schedule, so a tenth leaves 3,200 iterations before it. The errors of
shorter runs still depend on the start of the training, and deeper networks start more slowly.
"""

SUFFIX = ".findings.json"
"""The end of the name of a file of findings."""

FILE_LIMIT_BYTES = 64 << 20
"""The largest file of findings or of another record that is read."""


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        label: The name of the line in the legend.
        family: The family of the line. Lines of one family have one colour.
        x: The x coordinates.
        y: The y coordinates, as many as ``x``.
        low: The lower ends of a band, the minimum over several seeds; as many as ``x``, or empty.
        high: The upper ends of the band, the maximum over several seeds; as many as ``low``.
        dashed: Whether the line is dashed, which distinguishes two lines of one family.
        thin: Whether the line is drawn thin, as one seed of several.

    Raises:
        UsageError: The lengths differ.
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
        """Check the lengths."""
        if len(self.x) != len(self.y):
            raise UsageError(
                f"a line has {len(self.x)} x coordinates and {len(self.y)} y coordinates, expected equal numbers",
                code="line-lengths-differ",
            )
        if len(self.low) != len(self.high) or len(self.low) not in (0, len(self.x)):
            raise UsageError(
                f"a band has {len(self.low)} lower and {len(self.high)} upper ends, expected {len(self.x)} or none",
                code="band-lengths-differ",
            )


@dataclass(frozen=True)
class Mark:
    """A horizontal line across a panel at a value that the paper prints.

    Attributes:
        label: The name of the value, as "ResNet-20, paper".
        family: The family of lines whose colour the mark has.
        y: The value.
    """

    label: str
    family: str
    y: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes with its lines and marks.

    Attributes:
        title: The title.
        x_label: The label of the x axis.
        y_label: The label of the y axis.
        lines: The lines.
        marks: The marks.
        x_scale: The scale of the x axis.
        y_scale: The scale of the y axis.
        y_range: The ends of the y axis, the lower one first, or ``None`` for a range that fits the lines.
        source: The figure of the paper that the panel reproduces, as "Figure 6, left", or empty.

    Raises:
        UsageError: The range is reversed, or a logarithmic axis begins at 0 or below.
    """

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
        """Check the range."""
        if self.y_range is None:
            return
        if self.y_range[0] >= self.y_range[1]:
            raise UsageError(f"y_range is {self.y_range}, expected the lower end first", code="range-reversed")
        if self.y_scale == "log" and self.y_range[0] <= 0:
            raise UsageError(
                f"y_range of a logarithmic axis is {self.y_range}, expected values above 0",
                code="log-range-not-positive",
            )


@dataclass(frozen=True)
class FindingsTable:
    """A table of text.

    The paper's numbers belong to other images, so they have a table of their own, whose caption names the data set.

    Attributes:
        caption: The caption.
        headings: The headings of the columns.
        rows: The cells, row by row. The first cell of a row is its heading.

    Raises:
        UsageError: There are no headings, or a row has another number of cells.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Check the numbers of headings and cells."""
        if not self.headings:
            raise UsageError("the table has no headings", code="table-without-headings")
        for row in self.rows:
            if len(row) != len(self.headings):
                raise UsageError(
                    f"a row has {len(row)} cells, expected {len(self.headings)}, one for each heading",
                    code="table-row-width",
                )

    @classmethod
    def of(cls, caption: str, items: Iterable[Item], columns: Mapping[str, Callable[[Item], str]]) -> FindingsTable:
        """Return a table with a row for each item.

        Args:
            caption: The caption.
            items: The items.
            columns: For each heading, the function that returns the cell of an item.
        """
        return cls(caption, tuple(columns), tuple(tuple(cell(item) for cell in columns.values()) for item in items))


@dataclass(frozen=True)
class Check:
    """One claim of the paper and the measurement for it.

    Attributes:
        said: The claim, in one sentence.
        source: The section, figure or table of the paper.
        found: The measurement, in one sentence.
        outcome: The outcome by the measured numbers alone. ``Findings.outcome_of`` also considers the training.
        trained: Whether the claim is about trained networks, so that a short schedule cannot decide it.
    """

    said: str
    source: str
    found: str
    outcome: Outcome
    trained: bool = True


@dataclass(frozen=True)
class Provenance:
    """The origin of findings.

    Attributes:
        data: The name of the data set for people, as "CIFAR-10, JPEG copies"; empty if none was used.
        images: The numbers of images by part: train, validation, test.
        seeds: The seeds of the runs.
        scale: The share of the paper's schedule, 1.0 for all of it; ``None`` if nothing was trained, or if the
            runs have different shares.
        recipe: The recipe in words.
        machine: The processor or GPU.
        versions: The versions of the libraries that computed.
        command: The command that makes the findings again.
        time: The time, as ISO 8601 in UTC.
        until: The lowest iteration that an unfinished run has reached; ``None`` if all runs are finished.
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
        """The share of the paper's schedule that all runs completed; ``None`` without a single share."""
        if self.scale is None or self.until is None:
            return self.scale
        return min(self.scale, self.until / PAPER_ITERATIONS)


@dataclass(frozen=True)
class Findings:
    """The result of an experiment.

    Attributes:
        experiment: The name of the experiment.
        title: The title.
        checks: The claims of the paper and their outcomes.
        panels: The panels of the figure.
        tables: The tables.
        notes: The limits of the findings, a sentence each.
        provenance: The origin of the findings.
        findings: The schema version.
    """

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
        """The combined outcome of all checks."""
        return combine_outcomes(map(self.outcome_of, self.checks))

    @property
    def too_short(self) -> bool:
        """Whether the networks were trained for less than ``CONCLUSIVE_SHARE`` of the paper's schedule."""
        share = self.provenance.share
        return share is not None and share < CONCLUSIVE_SHARE

    def outcome_of(self, check: Check) -> Outcome:
        """Return the outcome of one check: undecided if it is about networks whose training was too short."""
        return "undecided" if check.trained and self.too_short else check.outcome


def combine_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the combined outcome: contradicted if any of ``outcomes`` is, confirmed if all are."""
    kinds = set(outcomes)
    if "contradicted" in kinds:
        return "contradicted"
    return "confirmed" if kinds == {"confirmed"} else "undecided"


def write(findings: Findings, folder: Path) -> Path:
    """Write the findings into ``folder`` as ``EXPERIMENT.findings.json`` and return the path.

    Args:
        findings: The findings.
        folder: The folder, which exists.

    Raises:
        ResourceError: The file cannot be written.
    """
    target = folder / f"{findings.experiment}{SUFFIX}"
    write_record(findings, target)
    return target


def write_record(record: object, path: Path) -> None:
    """Write a dataclass as indented JSON, atomically.

    Args:
        record: The dataclass.
        path: The file, which is replaced if it exists.

    Raises:
        ResourceError: The file cannot be written.
    """
    with files.write_atomically(path) as temporary:
        temporary.write_text(codec.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Findings:
    """Read the findings in a file.

    Raises:
        ResourceError: The file cannot be read.
        ArtifactError: The file does not hold findings.
        CompatibilityError: The schema of the file is newer than this version reads.
    """
    return read_record(Findings, path, "findings", SCHEMA_VERSION, "rbench paper writes such files")


def read_record(cls: type[Record], path: Path, version: str, newest: int, origin: str) -> Record:
    """Read a dataclass from a JSON file that carries its schema version.

    Args:
        cls: The dataclass.
        path: The file.
        version: The name of the field with the schema version.
        newest: The newest schema version that can be read.
        origin: The hint of the error if the file holds something else: the command that writes such files.

    Raises:
        ResourceError: The file cannot be read.
        ArtifactError: The file holds something else.
        CompatibilityError: The schema version of the file is above ``newest``.
    """
    content = files.read_bounded(path, FILE_LIMIT_BYTES)
    try:
        data = codec.parse(content)
        number = data.get(version) if isinstance(data, dict) else None
        if isinstance(number, int) and number > newest:
            raise CompatibilityError(
                f"field {version!r} has schema version {codec.show(number)}, but this rbench reads versions up to "
                f"{newest}",
                code="record-schema-newer",
                path=path,
                hint="pip install --upgrade rexport",
            )
        return codec.decode(cls, data)
    except ArtifactError as error:
        raise ArtifactError(error.what, code=error.code, path=path, hint=origin) from error


def list_findings_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of findings in the folder, sorted by name."""
    return tuple(sorted(folder.glob(f"*{SUFFIX}")))


def floats(values: Iterable[float]) -> tuple[float, ...]:
    """Return the values, for instance scalars of a library, as Python floats for JSON."""
    return tuple(float(value) for value in values)
