"""Writers that fail or are killed at their calls of the system, and eight processes that write one file."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.records import store
from runtimes import Artifact, files
from scripts.figures.setting import Figure, FigureSettings, console_script
from tests.faults.interposer import KILL, Fault, Interposer
from tests.faults.writers import WRITERS, check_artifacts

KILLS, WRITING_PROCESSES, APPENDS = 30, 8, 20

LIMIT_S = 900.0
"""The longest time that a process may take on a busy machine."""

HOLDER = """
import fcntl, os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(3600)
"""
"""A process that holds a lock."""


def _interposer(folder: Path) -> Interposer:
    for name in ("state", "target"):
        (folder / name).mkdir()
    return Interposer(folder / "state", folder / "target")


def measure_failures(setting: FigureSettings) -> Iterator[Figure]:
    """Every call of every writer fails once, and then all from that call on."""
    calls, failures, problems = 0, 0, 0
    missing = {name: [each for each in writer.libraries if find_spec(each) is None] for name, writer in WRITERS.items()}
    names = [name for name in WRITERS if not missing[name]][: setting.limit]
    for number, name in enumerate(names):
        folder = setting.folder / f"writer{number}"
        folder.mkdir()
        command = [sys.executable, "-m", "tests.faults.walk", str(folder / "inputs"), name]
        environment = os.environ | _interposer(folder).environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        walk = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"name"')))
        shutil.rmtree(folder)
        calls += walk["calls"]
        failures += walk["failures"]
        problems += len(walk["problems"])
        value = f"{walk['calls']} calls, {walk['failures']:,} runs with a failure: {len(walk['problems'])} problems"
        yield Figure(f"failing writes, {name}", value, "0 problems", not walk["problems"], tuple(walk["problems"]))
    notes = [f"{name}: not walked, without {', '.join(libraries)}" for name, libraries in missing.items() if libraries]
    value = f"{len(names)} writers, {calls} calls, {failures:,} runs with a failure: {problems} problems"
    yield Figure("failing writes", value, "0 problems", not problems, tuple(notes))


@dataclass(frozen=True)
class Export:
    """``rexport onnx`` with ``--force``, as a process whose calls are counted.

    Attributes:
        faults: The interposer; its folder is that of the target.
    """

    faults: Interposer

    @property
    def target(self) -> Path:
        return self.faults.folder / "resnet20.onnx"

    def start(self, seed: int) -> subprocess.Popen[str]:
        words = ("onnx", "resnet20", "--weights", "random", "--seed", str(seed), "--force", "-o", str(self.target))
        return subprocess.Popen(
            [console_script("rexport"), *words],
            env=os.environ | self.faults.environment,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def run(self, seed: int) -> int:
        process = self.start(seed)
        _, errors = process.communicate(timeout=LIMIT_S)
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(errors)
        return process.returncode

    def digest(self) -> str:
        """The digest of the artifact at the target, after all its checks."""
        check_artifacts(self.faults.folder)
        return files.sha256_of(self.target)

    def left_over(self) -> list[str]:
        """The names in the folder that belong to no artifact."""
        artifact = Artifact.read(self.target)
        assert artifact.manifest is not None
        assert artifact.manifest.vectors is not None
        known = {self.target.name, f"{self.target.name}.json", artifact.manifest.vectors.name}
        return sorted(set(os.listdir(self.faults.folder)) - known)


def measure_kills(setting: FigureSettings) -> Iterator[Figure]:
    """Kills at random calls of an export, eight processes on one target, and a lock that another process holds."""
    setting.folder.joinpath("kills").mkdir()
    export = Export(_interposer(setting.folder / "kills"))
    yield _kill_exports(export, setting.limit or KILLS)
    yield _export_at_once(export, min(WRITING_PROCESSES, setting.limit or WRITING_PROCESSES))
    yield _append_at_once(setting.folder)
    yield _hold_lock(setting.folder)


def _kill_exports(export: Export, kills: int) -> Figure:
    """Kill exports over an older artifact: it or the new one opens, and the next export leaves nothing else."""
    digests = {}
    for seed in (0, 1):
        export.faults.arm(None)
        export.run(seed)
        digests[seed] = export.digest()
    calls, chance, wrong, notes = export.faults.calls(), random.Random(0), Counter[str](), list[str]()
    for number in range(kills):
        first = 1 if number % 2 else max(1, calls - 20)  # half of the kills come at the end, with its fsync and rename
        at = chance.randrange(first, calls + 1)
        export.faults.arm(Fault(at, KILL))
        ended = export.run(number % 2)
        wrong["not killed"] += ended != -signal.SIGKILL
        try:
            wrong["lost"] += export.digest() not in digests.values()
            remains = f"{', '.join(export.left_over()) or 'nothing'} left over"
        except Exception as error:
            wrong["lost"] += 1
            remains = repr(error)
        notes.append(f"kill {number}: call {at} of {calls}; {remains}")
    export.faults.arm(None)
    export.run(0)
    wrong["left over"] += len(export.left_over())
    wrong["different"] += export.digest() != digests[0]
    value = f"{kills} kills at random calls, seed 0: {_say(wrong)}"
    return Figure("kills of an export", value, "0 of each", not wrong.total(), tuple(notes))


def _say(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _export_at_once(export: Export, count: int) -> Figure:
    """Start exports to one target at once: each ends well, and one of them is there."""
    export.faults.arm(None)
    processes = [export.start(seed) for seed in range(count)]
    ended = [(process.communicate(timeout=LIMIT_S), process.returncode)[1] for process in processes]
    export.digest()
    wrong = Counter({"failed": sum(code != 0 for code in ended), "left over": len(export.left_over())})
    return Figure("exports at once", f"{count} exports to one target: {_say(wrong)}", "0 of each", not wrong.total())


def _append_at_once(folder: Path) -> Figure:
    """Append results from several processes to one file: no line is lost."""
    path = folder / "results.jsonl"
    code = (
        "import sys\nfrom benchmarks.records import store\nfrom tests.benchmarks.results import REFERENCE\n"
        f"for _ in range({APPENDS}):\n    store.ResultsFile(sys.argv[1]).append(REFERENCE.result, {{}})"
    )
    command = [sys.executable, "-c", code, str(path)]
    processes = [subprocess.Popen(command) for _ in range(WRITING_PROCESSES)]
    failed = sum(process.wait(LIMIT_S) != 0 for process in processes)
    rows = len(path.read_bytes().splitlines())
    store.read(path)
    lost = WRITING_PROCESSES * APPENDS - rows
    value = f"{WRITING_PROCESSES} processes append {APPENDS} results each to one file: {failed} failed, {lost} lost"
    return Figure("results at once", value, "0, 0", not (failed or lost))


def _hold_lock(folder: Path) -> Figure:
    """A process waits for a lock that another holds: it says for whom, and gives up."""
    code = (
        "import logging, pathlib, sys\nfrom runtimes import files\nfrom runtimes.errors import ResourceError\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        "try:\n    with files.folder_lock(pathlib.Path(sys.argv[1]), 3.0):\n        pass\n"
        "except ResourceError as error:\n    logging.info('%s', error)\n    sys.exit(error.exit_code)"
    )
    held = [sys.executable, "-c", HOLDER, str(folder / files.LOCK)]
    with subprocess.Popen(held, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        start = time.monotonic()
        waiting = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        waited_s = time.monotonic() - start
        holder.kill()
    lines = waiting.stderr.splitlines()
    named = sum(f"process {holder.pid}" in line for line in lines)
    value = f"exit code {waiting.returncode} after {waited_s:.1f} s; {named} of {len(lines)} lines name the holder"
    return Figure("a lock held by a stranger", value, "6, all", waiting.returncode == 6 and named == len(lines) == 2)
