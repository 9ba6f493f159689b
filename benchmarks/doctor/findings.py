"""The findings of the doctor, the report that holds them, and its text."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from benchmarks.machine.environment import Environment
from runtimes.errors import Reason

Topic: TypeAlias = Literal["rexport", "machine", "gpu", "runtimes", "extras", "conflicts", "folders"]
"""The topic of a finding."""

Status: TypeAlias = Literal["ok", "warning", "missing", "broken"]
"""The status of a finding, as ``Finding`` explains it."""

WIDTH, _INDENT = 100, 9
"""The width of the text and the indentation of findings, in columns."""

_TITLES = {"gpu": "GPU", "extras": "extras of rexport"}
"""The titles of topics that differ from the topic."""

_WORDS: dict[Status, tuple[str, str]] = {
    "warning": ("warning", "warnings"),
    "missing": ("optional component is missing", "optional components are missing"),
}
"""The words for the verdict, singular and plural."""


@dataclass(frozen=True)
class Finding:
    """The result of one examination.

    Attributes:
        topic: The topic.
        subject: What was examined, as ``onnxruntime on cpu``.
        status: ``ok``. ``missing``: not installed or not built in, which is not a fault. ``broken``: installed, but
            does not work. ``warning``: works, but disturbs measurements or will cause problems.
        code: The stable code of the sentence.
        what: The result in one line.
        mend: The commands that repair it, in their order; empty if nothing has to be done or no command helps.
    """

    topic: Topic
    subject: str
    status: Status
    code: str
    what: str
    mend: tuple[str, ...] = ()


@dataclass(frozen=True)
class DoctorReport:
    """All findings.

    Attributes:
        rexport: The version of rexport, or ``unknown`` if it is not installed.
        folder: The folder that rexport runs from.
        environment: The machine before the tests, with all installed packages.
        healthy: Whether a backend runs models and nothing is broken.
        findings: The findings, grouped by topic.
        schema_version: The version of the JSON format.
    """

    rexport: str
    folder: str
    environment: Environment
    healthy: bool
    findings: tuple[Finding, ...]
    schema_version: int = 1


NOTHING_RUNS = "no backend can run a model here"
"""The summary if no backend works."""

FIRST_BACKEND = ("pip install 'rexport[cpu]'",)
"""The command that installs ONNX Runtime."""


def nothing_runs(findings: Iterable[Finding]) -> bool:
    """Return whether no backend works, not even with a warning."""
    return not any(finding.topic == "runtimes" and finding.status in ("ok", "warning") for finding in findings)


def from_message(topic: Topic, subject: str, status: Status, message: Reason, *mend: str) -> Finding:
    """Return a finding with the sentence and the code of a message.

    Args:
        topic: The topic.
        subject: What was examined.
        status: The status.
        message: The message. Its sentence may end with commands in parentheses, as ``... (pip install PACKAGE)``.
        mend: The commands that repair it. If empty, the commands at the end of the sentence.
    """
    what, commands = split_commands(message.sentence)
    return Finding(topic, subject, status, message.code, what, mend or commands)


def split_commands(sentence: str) -> tuple[str, tuple[str, ...]]:
    """Split ``sentence`` into the text and the commands in parentheses at its end."""
    parts = _REMEDY.fullmatch(sentence)
    return (sentence, ()) if parts is None else (parts["what"], tuple(parts["mend"].split(_THEN)))


_THEN = ", then "
_COMMAND = r"pip (?:un)?install (?:'[^']*'|[^ ,()'])+(?: (?:'[^']*'|[^ ,()'])+)*"
_REMEDY = re.compile(rf"(?P<what>.*) \((?P<mend>{_COMMAND}(?:{_THEN}{_COMMAND})*)\)")


def format_report(report: DoctorReport) -> Iterator[str]:
    """Yield the lines of a report, at most 100 columns wide except for long commands and paths.

    Each finding begins with its status. The commands that repair it follow on lines of their own. If no backend runs
    models, the report begins with this fact and the command that installs a backend.
    """
    if nothing_runs(report.findings):
        yield f"{NOTHING_RUNS}:"
        yield from (f"{'':{_INDENT}}$ {command}" for command in FIRST_BACKEND)
        yield ""
    for topic in get_args(Topic):
        if findings := [finding for finding in report.findings if finding.topic == topic]:
            yield _TITLES.get(topic, topic)
            for finding in findings:
                yield from _wrap(f"{finding.status:{_INDENT}}{finding.subject}: {finding.what}", " " * _INDENT)
                yield from (f"{'':{_INDENT}}$ {command}" for command in finding.mend)
            yield ""
    yield from _wrap(verdict(report), "")


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, replace_whitespace=False, break_long_words=False, break_on_hyphens=False
    )


def verdict(report: DoctorReport) -> str:
    """Return a summary of the report in one line."""
    broken = [finding.subject for finding in report.findings if finding.status == "broken"]
    counts = Counter(finding.status for finding in report.findings)
    rest = [f"{counts[status]} {words[counts[status] != 1]}" for status, words in _WORDS.items() if counts[status]]
    working = NOTHING_RUNS if nothing_runs(report.findings) else "everything that is installed works"
    head = f"broken: {', '.join(broken)}" if broken else working
    return "; ".join([head, *rest])
