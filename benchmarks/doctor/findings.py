"""What the doctor says: findings, and the report that they make up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from benchmarks.machine.environment import Environment
from runtimes.errors import Reason

Topic: TypeAlias = Literal["rexport", "machine", "gpu", "runtimes", "extras", "conflicts", "folders"]
Status: TypeAlias = Literal["ok", "warning", "missing", "broken"]


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
        healthy: whether nothing is broken.
        findings: grouped by topic.
    """

    rexport: str
    folder: str
    environment: Environment
    healthy: bool
    findings: tuple[Finding, ...]
    schema_version: int = 1


def from_message(topic: Topic, subject: str, status: Status, message: Reason) -> Finding:
    """A finding from a message that ends, as rexport's do, in what mends it: ``... (pip install PACKAGE)``.

    What stands there is a command only if it is nothing else; words stay in the message.
    """
    what, commands = split_commands(message.sentence)
    return Finding(topic, subject, status, message.code, what, commands)


def split_commands(sentence: str) -> tuple[str, tuple[str, ...]]:
    """A sentence without the commands in parentheses at its end, and these commands."""
    parts = _REMEDY.fullmatch(sentence)
    return (sentence, ()) if parts is None else (parts["what"], tuple(parts["mend"].split(_THEN)))


_THEN = ", then "
_COMMAND = r"pip (?:un)?install (?:'[^']*'|[^ ,()'])+(?: (?:'[^']*'|[^ ,()'])+)*"
_REMEDY = re.compile(rf"(?P<what>.*) \((?P<mend>{_COMMAND}(?:{_THEN}{_COMMAND})*)\)")
