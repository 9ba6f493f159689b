"""The report as text: a line for each finding that begins with its status, and the commands that mend it below."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator

from benchmarks.doctor.findings import DoctorReport, Finding, Status, Topic

WIDTH = 100
_INDENT = 9

_TITLES: dict[Topic, str] = {
    "rexport": "rexport",
    "machine": "machine",
    "gpu": "GPU",
    "runtimes": "runtimes",
    "extras": "extras of rexport",
    "conflicts": "conflicts",
    "folders": "folders",
}


def format_report(report: DoctorReport) -> Iterator[str]:
    """Lines of 100 columns at most, but for commands and paths that are longer."""
    for topic, title in _TITLES.items():
        found = [finding for finding in report.findings if finding.topic == topic]
        if found:
            yield title
            for finding in found:
                yield from _format_finding(finding)
            yield ""
    yield from _wrap(verdict(report), "")


def _format_finding(finding: Finding) -> Iterator[str]:
    yield from _wrap(f"{finding.status:{_INDENT}}{finding.subject}: {finding.what}", " " * _INDENT)
    for command in finding.mend:
        yield f"{'':{_INDENT}}$ {command}"


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        subsequent_indent=indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def verdict(report: DoctorReport) -> str:
    """The report in a sentence or two."""
    broken = [finding.subject for finding in report.findings if finding.status == "broken"]
    counts = Counter(finding.status for finding in report.findings)
    rest = [f"{counts[status]} {words[counts[status] != 1]}" for status, words in _WORDS.items() if counts[status]]
    head = f"broken: {', '.join(broken)}" if broken else "everything that is installed works"
    return "; ".join([head, *rest])


_WORDS: dict[Status, tuple[str, str]] = {
    "warning": ("warning", "warnings"),
    "missing": ("optional thing is missing", "optional things are missing"),
}
