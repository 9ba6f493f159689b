"""What an experiment found, as data: a verdict on the paper's claim, a table, panels of lines, and where it comes from.

Every experiment ends in ``Findings``. Files, pictures and the report's section are made from them alone, by one piece
of code for all experiments; so that what was found can be drawn again without being trained again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runtimes import codec, files
from runtimes.errors import ArtifactError, CompatibilityError, UsageError

SCHEMA_VERSION = 1

Experiment = Literal["degradation", "depth", "shortcuts", "responses", "gradients", "identity"]
Outcome = Literal["confirmed", "contradicted", "undecided"]
Scale = Literal["linear", "log"]

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
            raise UsageError(f"a line of {len(self.x)} x and {len(self.y)} y: expected as many", code="line-uneven")
        if len(self.low) != len(self.high) or len(self.low) not in (0, len(self.x)):
            raise UsageError(
                f"a band of {len(self.low)} and {len(self.high)} ends: expected {len(self.x)} or none",
                code="band-uneven",
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
        if self.y_range is not None and self.y_range[0] >= self.y_range[1]:
            raise UsageError(f"y_range {self.y_range}: expected the lower end first", code="range-reversed")
        if self.y_range is not None and self.y_scale == "log" and self.y_range[0] <= 0:
            raise UsageError(
                f"y_range {self.y_range} of a logarithmic axis: expected more than 0", code="range-not-positive"
            )


@dataclass(frozen=True)
class FindingsTable:
    """Cells as text, row by row under ``headings``; the first column heads its row. The paper's numbers have columns of
    their own, whose headings begin with "paper"."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Raises ``UsageError`` for a row that is not as wide as the headings, or for no headings."""
        if not self.headings:
            raise UsageError("a table without headings", code="headings-missing")
        for row in self.rows:
            if len(row) != len(self.headings):
                raise UsageError(
                    f"a row of {len(row)} cells under {len(self.headings)} headings", code="cells-not-headings"
                )


@dataclass(frozen=True)
class Check:
    """One claim and whether it was seen: ``said`` is the paper's, ``found`` is what was measured, in one sentence."""

    said: str
    source: str
    found: str
    outcome: Outcome


@dataclass(frozen=True)
class Provenance:
    """What the findings rest on.

    Attributes:
        data: the data set's name for people, as "CIFAR-10, JPEG copies"; or empty where none was used.
        images: counts by part: train, validation, test.
        seeds: of the runs.
        scale: of the paper's schedule: 1.0 is all of it, 0.1 a tenth; ``None`` where nothing was trained.
        until: the iteration that runs had come to which are not finished, the least of them; ``None`` if all are.
        recipe: in words.
        machine: processor or GPU.
        versions: of the libraries that computed.
        command: that makes them again.
        time: when, ISO 8601 in UTC.
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
        """Of all checks: contradicted if one is, confirmed if all are."""
        outcomes = {check.outcome for check in self.checks}
        if "contradicted" in outcomes:
            return "contradicted"
        return "confirmed" if outcomes == {"confirmed"} else "undecided"


def write(findings: Findings, folder: Path) -> Path:
    """Puts them into ``folder`` as ``EXPERIMENT.findings.json``; its path.

    Raises:
        ResourceError: as ``write_atomically``.
    """
    target = folder / f"{findings.experiment}{SUFFIX}"
    with files.write_atomically(target) as temporary:
        temporary.write_text(codec.dumps(findings, indent=1) + "\n", encoding="utf-8")
    return target


def read(path: Path) -> Findings:
    """The findings of a file.

    Raises:
        ResourceError: it cannot be read.
        ArtifactError: it holds something else.
        CompatibilityError: it is of a newer rbench.
    """
    content = files.read_bounded(path, FILE_LIMIT_BYTES)
    check_version(content, "findings", SCHEMA_VERSION, path)
    try:
        return codec.loads(Findings, content)
    except ArtifactError as error:
        raise ArtifactError(error.what, code=error.code, path=path, hint="rbench paper makes such files") from error


def check_version(content: bytes, field: str, newest: int, path: Path) -> None:
    """Returns where the file's ``field`` is a version that is read, or where it says none, or nonsense: it is then
    checked as a present one.

    Raises:
        CompatibilityError: it is of a newer rbench.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return
    version = data.get(field) if isinstance(data, dict) else None
    if isinstance(version, int) and version > newest:
        raise CompatibilityError(
            f"{field} of schema version {version}; this rbench reads up to {newest}",
            code="findings-newer",
            path=path,
            hint="pip install --upgrade rexport",
        )


def list_findings_files(folder: Path) -> tuple[Path, ...]:
    """The files of findings that lie in the folder, by name."""
    return tuple(sorted(folder.glob(f"*{SUFFIX}")))


def floats(values: Iterable[float]) -> tuple[float, ...]:
    """What a library's scalars are, as JSON has them."""
    return tuple(float(value) for value in values)
