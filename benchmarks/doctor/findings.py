"""What the doctor says: findings, the report that they make up, and its text."""

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
Status: TypeAlias = Literal["ok", "warning", "missing", "broken"]

WIDTH, _INDENT = 100, 9

_TITLES = {"gpu": "GPU", "extras": "extras of rexport"}
"""Of topics that are called otherwise on paper."""

_WORDS: dict[Status, tuple[str, str]] = {
    "warning": ("warning", "warnings"),
    "missing": ("optional thing is missing", "optional things are missing"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was examined.

    Attributes:
        topic: what it belongs to.
        subject: what it is about, as ``onnxruntime on cpu``.
        status: ``missing`` is what nobody installed or built in, and no fault; ``broken`` is there and does not work;
            a ``warning`` works and disturbs, or will.
        code: the stable code of the sentence.
        what: one line.
        mend: commands that mend it, in their order; none where nothing is to be done, or no command does it.
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
        rexport: its version, or ``unknown`` where it runs without being installed.
        folder: where it runs from.
        environment: the machine, before anything was tried on it, and every installed package.
        healthy: whether a backend runs models, and nothing is broken.
        findings: grouped by topic.
    """

    rexport: str
    folder: str
    environment: Environment
    healthy: bool
    findings: tuple[Finding, ...]
    schema_version: int = 1


NOTHING_RUNS = "no backend can run a model here"
FIRST_BACKEND = ("pip install 'rexport[cpu]'",)
"""What says it, and the command that brings ONNX Runtime."""


def nothing_runs(findings: Iterable[Finding]) -> bool:
    """Whether no backend works, not even with a warning."""
    return not any(finding.topic == "runtimes" and finding.status in ("ok", "warning") for finding in findings)


def from_message(topic: Topic, subject: str, status: Status, message: Reason, *mend: str) -> Finding:
    """A finding from a message, with the commands that mend it, or those in which it ends, as rexport's messages do:
    ``... (pip install PACKAGE)``. What stands there is a command only if it is nothing else; words stay in the message.
    """
    what, commands = split_commands(message.sentence)
    return Finding(topic, subject, status, message.code, what, mend or commands)


def split_commands(sentence: str) -> tuple[str, tuple[str, ...]]:
    """A sentence without the commands in parentheses at its end, and these commands."""
    parts = _REMEDY.fullmatch(sentence)
    return (sentence, ()) if parts is None else (parts["what"], tuple(parts["mend"].split(_THEN)))


_THEN = ", then "
_COMMAND = r"pip (?:un)?install (?:'[^']*'|[^ ,()'])+(?: (?:'[^']*'|[^ ,()'])+)*"
_REMEDY = re.compile(rf"(?P<what>.*) \((?P<mend>{_COMMAND}(?:{_THEN}{_COMMAND})*)\)")


def format_report(report: DoctorReport) -> Iterator[str]:
    """Lines of 100 columns at most, but for commands and paths that are longer. Each finding begins with its status,
    and the commands that mend it stand below it. The first line says it where no backend runs models."""
    if nothing_runs(report.findings):
        yield f"{NOTHING_RUNS}:"
        yield from (f"{'':{_INDENT}}$ {command}" for command in FIRST_BACKEND)
        yield ""
    for topic in get_args(Topic):
        if found := [finding for finding in report.findings if finding.topic == topic]:
            yield _TITLES.get(topic, topic)
            for finding in found:
                yield from _wrap(f"{finding.status:{_INDENT}}{finding.subject}: {finding.what}", " " * _INDENT)
                yield from (f"{'':{_INDENT}}$ {command}" for command in finding.mend)
            yield ""
    yield from _wrap(verdict(report), "")


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, replace_whitespace=False, break_long_words=False, break_on_hyphens=False
    )


def verdict(report: DoctorReport) -> str:
    """The report in a sentence or two."""
    broken = [finding.subject for finding in report.findings if finding.status == "broken"]
    counts = Counter(finding.status for finding in report.findings)
    rest = [f"{counts[status]} {words[counts[status] != 1]}" for status, words in _WORDS.items() if counts[status]]
    working = NOTHING_RUNS if nothing_runs(report.findings) else "everything that is installed works"
    head = f"broken: {', '.join(broken)}" if broken else working
    return "; ".join([head, *rest])
