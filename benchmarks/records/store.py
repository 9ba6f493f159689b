"""The file of results: JSON lines, one result a line. A line is either complete or absent."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.records import migration
from benchmarks.records.identity import References, find_evaluated_reference, find_timed_reference
from benchmarks.records.result import SCHEMA_VERSION, Result
from runtimes import codec, files
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError

FILE_LIMIT_BYTES = 1 << 30
"""The largest file of results that is read."""

FILE_NAME = "results.jsonl"
"""The name of the file of results in the output folder of a run."""

FIGURES = "figures"
"""The key of a line for the figures derived from the result. Readers ignore it."""


ROOF_DIVISORS = ("multiply_adds", "traffic_bytes", "peak_multiply_adds_per_s", "bandwidth_bytes_per_s")
"""The fields of ``RoofInputs``, all of which some figure is divided by."""


def find_results_file(path: str | os.PathLike[str]) -> Path:
    """Return the path itself, or ``results.jsonl`` in it if it is a folder."""
    return Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)


def read(path: str | os.PathLike[str]) -> tuple[Result, ...]:
    """Read the results in a file, oldest first. Results of older schema versions are converted to the current one.

    Raises:
        ResourceError: The file is missing or cannot be read.
        ArtifactError: A line is not a result. The message names the line.
        CompatibilityError: A result has a newer schema version.
    """
    if not Path(path).exists():
        raise ResourceError(
            "no such file",
            code="results-file-missing",
            path=path,
            hint="rbench run --json FILE or -o DIR writes results",
        )
    lines = files.read_bounded(path, FILE_LIMIT_BYTES).splitlines()
    results = [parse_line(line, number, path) for number, line in enumerate(lines, start=1)]
    references = References(results)
    return tuple(_drop_derivable(result, references) for result in results)


def _drop_derivable(result: Result, among: References) -> Result:
    """Return the result without recorded figures that follow from a reference in the file."""
    recorded = result.recorded
    if recorded is None or recorded.complete:
        return result
    estimates, verdict, flips = dict(recorded.estimates), recorded.verdict, recorded.flips
    if find_timed_reference(result, among) is not None:
        estimates.pop("ratio", None)
        verdict = None
    if find_evaluated_reference(result, among) is not None:
        estimates = {name: estimate for name, estimate in estimates.items() if name == "ratio"}
        flips = None
    kept = (
        replace(recorded, estimates=estimates, verdict=verdict, flips=flips) if estimates or verdict or flips else None
    )
    return replace(result, recorded=kept)


def parse_line(line: bytes, number: int, path: str | os.PathLike[str]) -> Result:
    """Return the result of a line.

    Args:
        line: The line.
        number: The number of the line, for messages.
        path: The file, for messages.

    Raises:
        ArtifactError: The line is not a result.
        CompatibilityError: The result has a newer schema version.
    """
    try:
        data = codec.parse(line)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            version = SCHEMA_VERSION  # a missing or invalid version is checked against the current schema
        if version > SCHEMA_VERSION:
            raise CompatibilityError(
                f"line {number}: the result has schema version {codec.show(version)}, but this rbench reads versions "
                f"up to {SCHEMA_VERSION}",
                code="schema-newer",
                path=path,
                hint="pip install --upgrade rexport",
            )
        if version < 1:
            expected = f"expected 1 to {SCHEMA_VERSION}, got {codec.show(version)}"
            raise ArtifactError(f"field 'schema_version': {expected}", code="schema-unknown")
        if isinstance(data, dict):
            data.pop(FIGURES, None)
            data = migration.migrate_row(data, version) if version <= migration.LAST else data
            data = migration.rename_shape(data)
        result = codec.decode(Result, data)
        _check_divisors(result)
        return result
    except ArtifactError as error:
        raise ArtifactError(f"line {number}: {error.what}", code=error.code, path=path) from error


def _check_divisors(result: Result) -> None:
    """Check that the numbers of a row that figures are divided by are positive.

    Raises:
        ArtifactError: One is not. The message names it.
    """
    numbers: dict[str, float] = {"identity.batch": result.identity.batch}
    if result.roof is not None:
        numbers |= {f"roof.{name}": getattr(result.roof, name) for name in ROOF_DIVISORS}
    if result.samples or result.load is not None:
        numbers["ran.threads"] = result.ran.threads
    if result.load is not None:
        numbers["load.clients"] = result.load.clients
    conditions = [process.conditions for process in result.samples]
    conditions += [] if result.load is None else [result.load.conditions]
    for each in conditions:
        if each is not None:
            numbers["conditions.wall_s"] = min(each.wall_s, numbers.get("conditions.wall_s", math.inf))
    for process in result.samples:
        for series in process.throughput:
            rates = (*series.rates_per_s, numbers.get("throughput.rates_per_s", math.inf))
            numbers["throughput.rates_per_s"] = min(rates)
    for name, value in numbers.items():
        if not value > 0:
            raise ArtifactError(f"field {name!r}: expected a number above 0, got {value}", code="row-not-positive")


def format_line(result: Result, figures: Mapping[str, object]) -> bytes:
    """Return the line of a result, with the ``figures`` derived from it."""
    return codec.dumps({**codec.encode(result), FIGURES: figures}).encode() + b"\n"


class ResultsFile:
    """A JSON-lines file that results are appended to. Existing results are kept; several processes may append at once.

    A missing folder is created, and an existing file is checked.

    Args:
        path: The file.

    Raises:
        ResourceError: The folder is not writable, or the file cannot be read.
        ArtifactError: The file holds something other than results. It is not changed.
        CompatibilityError: The file holds results of a newer schema version. It is not changed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        files.check_writable(self.path.parent)
        if self.path.exists():
            read(self.path)

    def append(self, result: Result, figures: Mapping[str, object]) -> None:
        """Append the line of a result. After a kill at any moment, the file has the whole line or is unchanged.

        Args:
            result: The result.
            figures: The figures derived from the result, for readers without this package.

        Raises:
            ResourceError: The file cannot be written, for example because the disk is full. It is unchanged.
        """
        with files.folder_lock(self.path.parent):
            old = files.read_bounded(self.path, FILE_LIMIT_BYTES) if self.path.exists() else b""
            if old and not old.endswith(b"\n"):
                old += b"\n"
            with files.write_atomically(self.path) as temporary:
                temporary.write_bytes(old + format_line(result, figures))
