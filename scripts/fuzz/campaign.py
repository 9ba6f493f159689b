"""A campaign against one reader: mutated files, one after another, and the faults that they show.

Each file follows from the seed, the name of the reader and the number of the case, so it can be made again. A campaign
runs in a process of its own; a crash or a hang of that process is a finding too.
"""

from __future__ import annotations

import multiprocessing
import random
import re
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from scripts.fuzz.judge import judge
from scripts.fuzz.mutations import mutate
from scripts.fuzz.reader import Reader

HANG_S = 120
"""The time for one file after which its process is ended."""

MAX_FINDINGS = 10
"""The number of different findings after which a campaign against a reader ends."""

POLL_S = 0.2
"""The longest time after which a stopped campaign notices it."""


@dataclass(frozen=True)
class Finding:
    """A file that breaks a rule of a reader.

    Attributes:
        reader: The name of the reader.
        seed: The seed of the campaign.
        case: The number of the case.
        fault: The rule that is broken.
    """

    reader: str
    seed: int
    case: int
    fault: str

    @property
    def signature(self) -> str:
        """The rule and the code of the error, without numbers. Findings with one signature are taken for the same."""
        return re.sub(r"\d[\d,.]*", "", self.fault.partition(": ")[0])


class Corpus:
    """The good files of a reader, and the mutated ones.

    Args:
        reader: The reader.
        folder: A folder that the reader's samples may fill.
    """

    def __init__(self, reader: Reader, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.reader = reader
        self.samples = tuple(reader.samples(folder))

    def content(self, seed: int, case: int) -> bytes:
        """Return the file of a case. The first cases are the good files themselves."""
        if case < len(self.samples):
            return self.samples[case]
        return mutate(random.Random(f"{seed}/{self.reader.name}/{case}"), self.samples, self.reader.mutations)


def attack(corpus: Corpus, seed: int, cases: Iterator[int], scratch: Path) -> Iterator[Finding]:
    """Yield the findings of the cases. A good file that is refused is a finding as well.

    Args:
        corpus: The files.
        seed: The seed.
        cases: The numbers of the cases.
        scratch: A folder for the files. It is emptied for each case.
    """
    for case in cases:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        fault, refusal = judge(corpus.reader, scratch, corpus.content(seed, case))
        if case < len(corpus.samples) and refusal is not None:
            fault = f"refuses a good file: {refusal}"
        if fault is not None:
            yield Finding(corpus.reader.name, seed, case, fault)


@dataclass
class Campaign:
    """A campaign and its state.

    Attributes:
        reader: The name of the reader.
        seed: The seed.
        seconds: The time of the campaign.
        cases: The number of the files that were read.
        findings: The findings, one for each signature.
    """

    reader: str
    seed: int
    seconds: float
    cases: int = 0

    def __post_init__(self) -> None:
        self.findings: list[Finding] = []
        self._stopped = threading.Event()

    def _is_over(self) -> bool:
        return self._stopped.is_set() or len(self.findings) >= MAX_FINDINGS

    def stop(self) -> None:
        """Let ``run``, which another thread calls, return soon."""
        self._stopped.set()

    def run(self) -> None:
        """Run until the time is over, there are ``MAX_FINDINGS``, or ``stop`` is called."""
        with tempfile.TemporaryDirectory(prefix="rexport-fuzz-") as folder:  # no crash leaves it behind
            self._run_in(Path(folder))

    def _run_in(self, folder: Path) -> None:
        context, end, first = multiprocessing.get_context("spawn"), time.monotonic() + self.seconds, 0
        while time.monotonic() < end and not self._is_over():
            ours, theirs = context.Pipe(duplex=False)
            case = context.Value("q", first)
            order = (folder, self.reader, self.seed, first, end - time.monotonic())
            process = context.Process(target=_work, args=(theirs, case, *order), daemon=True)
            process.start()
            theirs.close()
            while not self._is_over():
                if not ours.poll(POLL_S):
                    continue
                if (finding := _receive(ours)) is None:
                    break
                self._keep(finding)
            if self._is_over():
                process.terminate()
            process.join()
            last, first = case.value, case.value + 1
            self.cases = last + 1
            if process.exitcode and not self._is_over():
                self._keep(Finding(self.reader, self.seed, last, f"ends the process ({_ending(process.exitcode)})"))

    def _keep(self, finding: Finding) -> None:
        if all(finding.signature != other.signature for other in self.findings):
            self.findings.append(finding)


def _ending(code: int) -> str:
    return (
        "no answer in time" if code == -signal.SIGALRM else signal.Signals(-code).name if code < 0 else f"code {code}"
    )


def _receive(pipe: Connection) -> Finding | None:
    try:
        finding = pipe.recv()
    except EOFError:
        return None
    return finding if isinstance(finding, Finding) else None


def _work(
    pipe: Connection, current: Synchronized[int], folder: Path, name: str, seed: int, first: int, seconds: float
) -> None:
    """Send the findings of the cases from ``first`` on, until the time is over."""
    from scripts.fuzz.readers import READERS

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the campaign, which ends this process
    corpus = Corpus(READERS[name], folder / "samples")
    end, case = time.monotonic() + seconds, first
    while time.monotonic() < end:
        current.value = case
        signal.alarm(HANG_S)
        for finding in attack(corpus, seed, iter((case,)), folder / "scratch"):
            pipe.send(finding)
        signal.alarm(0)
        case += 1
    pipe.close()
