"""What the doctor says: findings, and the report that they make up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from benchmarks.machine.environment import Environment

Topic: TypeAlias = Literal["rexport", "machine", "gpu", "runtimes", "extras", "conflicts", "folders"]
Status: TypeAlias = Literal["ok", "warning", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what it belongs to.
        subject: what it is about, as ``onnxruntime on cpu``.
        status: ``missing`` is what nobody installed or built in, and no fault; ``broken`` is there and does not work;
            a ``warning`` works and disturbs, or will.
        what: one line.
        mend: commands that mend it, in their order; none where nothing is to be done, or no command does it.
    """

    topic: Topic
    subject: str
    status: Status
    what: str
    mend: tuple[str, ...] = ()


@dataclass(frozen=True)
class DoctorReport:
    """All that was found.

    Attributes:
        rexport: its version, or ``unknown`` where it runs without being installed.
        folder: that it runs from.
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


def from_message(topic: Topic, subject: str, status: Status, message: str) -> Finding:
    """A finding from a message that ends, as rexport's do, in what mends it: ``... (pip install PACKAGE)``.

    What stands there is a command only if it is nothing else; words stay in the message.
    """
    found = _REMEDY.fullmatch(message)
    if found is None:
        return Finding(topic, subject, status, message)
    return Finding(topic, subject, status, found["what"], tuple(found["mend"].split(_THEN)))


_THEN = ", then "
_COMMAND = r"pip (?:un)?install (?:'[^']*'|[^ ,()'])+(?: (?:'[^']*'|[^ ,()'])+)*"
_REMEDY = re.compile(rf"(?P<what>.*) \((?P<mend>{_COMMAND}(?:{_THEN}{_COMMAND})*)\)")
