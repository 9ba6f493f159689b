"""Hostile surroundings in which every command of both programs is started, and what must hold of it there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import default_interrupt
from tests.refusals import error_codes

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_S = 240
SOMEONE = 12345
"""The number of a user who has no entry in ``/etc/passwd``."""

MODULES = {"rexport": "exporter.cli", "rbench": "benchmarks.cli"}
AS_SOMEONE = (
    "setpriv", f"--reuid={SOMEONE}", f"--regid={SOMEONE}", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
)  # fmt: skip
"""Runs a program as a user without a name, who may read all files and write only own ones."""

FULL_FOLDER = (
    'mount -t tmpfs -o size=4k none "$0" && head -c 4096 /dev/zero >"$0/full" 2>/dev/null; TMPDIR=$0 exec "$@"'
)


@dataclass(frozen=True)
class Surrounding:
    """What is unusual about the start of a process.

    Attributes:
        redirections: Of a shell, as ``>&-``.
        variables: What is changed in the environment; ``None`` removes a variable.
        flags: Options of Python.
        prefix: The command that starts the process in place of the shell.
        shell: Commands of the shell before the start.
        stdout: What reaches the reader of standard output: ``as ever``, ``other`` or ``nothing``.
        code: The exit code of a command that has something to print and ends with 0 elsewhere.
        cleared: Whether the environment has nothing but ``variables``.
    """

    redirections: str = ""
    variables: Mapping[str, str | None] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    shell: str = ""
    stdout: str = "as ever"
    code: int = 0
    cleared: bool = False

    def missing(self) -> str | None:
        """Why it cannot be made here; ``None`` if it can."""
        if not self.prefix:
            return None
        if os.geteuid() != 0:
            return f"only root may call {self.prefix[0]}"
        return None if shutil.which(self.prefix[0]) else f"there is no {self.prefix[0]}"


ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

SURROUNDINGS = {
    "stdout closed": Surrounding(">&-", stdout="nothing"),
    "all streams closed": Surrounding("<&- >&- 2>&-", stdout="nothing"),
    "stdout full": Surrounding(">/dev/full", stdout="nothing", code=6),
    "stderr full": Surrounding("2>/dev/full"),
    "no reader": Surrounding("| true", stdout="nothing"),
    "ascii": Surrounding(variables=ASCII, stdout="other"),
    "latin-1": Surrounding(variables={"PYTHONIOENCODING": "latin-1"}, stdout="other"),
    "nobody": Surrounding(prefix=AS_SOMEONE, cleared=True),
    "home not writable": Surrounding(prefix=AS_SOMEONE, variables={"HOME": "/proc"}),
    "no temporary folder": Surrounding(variables={"TMPDIR": "/nowhere"}),
    "temporary folder full": Surrounding(prefix=("unshare", "--mount", "sh", "-c", FULL_FOLDER)),
    "python -O": Surrounding(flags=("-O",)),
    "python -OO": Surrounding(flags=("-OO",)),
    "interrupt ignored": Surrounding(shell="trap '' INT; "),
    "few descriptors": Surrounding(shell="ulimit -n 64; "),
    "deleted folder": Surrounding(shell="mkdir gone && cd gone && rmdir ../gone; "),
    "narrow": Surrounding(variables={"COLUMNS": "1", "TERM": "dumb"}, stdout="other"),
    "wide": Surrounding(variables={"COLUMNS": "100000", "TERM": "xterm"}, stdout="other"),
    "odd locale": Surrounding(variables={"LC_ALL": "tr_TR.ISO-8859-9", "TZ": "Nowhere/Else", "LANGUAGE": "tr"}),
    "strict": Surrounding(variables={"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}),
}


@dataclass(frozen=True)
class Outcome:
    """What a command did in a surrounding."""

    code: int
    stdout: bytes
    stderr: str


def run(surrounding: Surrounding, folder: Path, program: str, *arguments: str) -> Outcome:
    """Run a command with the folder as its current one."""
    environment = {} if surrounding.cleared else dict(os.environ)
    environment |= {"PYTHONPATH": os.fspath(REPOSITORY), "PATH": os.environ["PATH"]}
    for name, value in surrounding.variables.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    command = [sys.executable, *surrounding.flags, "-m", MODULES[program], *arguments]
    script = f'{surrounding.shell}exec "$@" {surrounding.redirections}'
    if surrounding.redirections.startswith("|"):
        script = f'set -o pipefail; "$@" {surrounding.redirections}'
    prefix = list(surrounding.prefix)
    if prefix[:1] == ["setpriv"]:
        os.chown(folder, SOMEONE, SOMEONE)
    if "sh" in prefix:
        place = folder.with_name(f"{folder.name}-tmp")
        place.mkdir()
        prefix.append(str(place))
    with default_interrupt():
        done = subprocess.run(
            [*prefix, "bash", "-c", script, "bash", *command],
            cwd=folder, env=environment, capture_output=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    return Outcome(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


BUNDLES = {
    "a daemon of nobody": Surrounding(
        "<&- >&- 2>&-", shell="trap '' INT; ", prefix=AS_SOMEONE, flags=("-O",), stdout="nothing", cleared=True
    ),
    "full disks": Surrounding(
        ">/dev/full", prefix=("unshare", "--mount", "sh", "-c", FULL_FOLDER), stdout="nothing", code=6
    ),
    "an old terminal": Surrounding(
        variables=ASCII | {"COLUMNS": "1", "TERM": "dumb", "TZ": "Nowhere/Else"},
        flags=("-OO",),
        shell="ulimit -n 64; ",
        stdout="other",
    ),
}
"""Several at once, so that a test of all commands needs few processes."""


@dataclass(frozen=True)
class Call:
    """A cheap call of a command.

    Attributes:
        arguments: The arguments, with ``{artifact}``, ``{images}``, ``{results}`` and ``{runtime}`` for files.
        code: The exit code in usual surroundings.
        error: The code of the error that it ends with, if it does.
        prints: Whether it prints a result.
    """

    arguments: str
    code: int = 0
    error: str = ""
    prints: bool = True


def _refusal(arguments: str, code: int, error: str) -> Call:
    return Call(arguments, code, error, prints=False)


MISSING = (6, "file-access-failed")

CALLS = {
    "rexport onnx": _refusal("missing.pth", *MISSING),
    "rexport torch": _refusal("missing.pth", *MISSING),
    "rexport tensorrt": _refusal("missing.onnx", *MISSING),
    "rexport refit": _refusal("missing.engine {artifact}", *MISSING),
    "rexport predict": Call("{artifact} {images}"),
    "rexport verify": Call("{artifact}"),
    "rexport inspect": Call("{artifact}"),
    "rexport explain": Call("{artifact} --json"),
    "rexport label": Call("{images} --artifact {artifact} --out labels"),
    "rexport serve": _refusal("missing.onnx", *MISSING),
    "rexport triton": Call("{artifact} --out repository/"),
    "rexport manifests kserve": Call("{artifact}"),
    "rexport manifests rayservice": Call("{artifact}"),
    "rexport manifests rayjob": _refusal("{artifact}", 2, "usage"),
    "rexport manifests compose": Call("{artifact} --out compose.yaml"),
    "rexport manifests dockerfile": Call("{artifact}"),
    "rexport web": Call("{artifact} --onnxruntime-web {runtime}"),
    "rexport list": Call(""),
    "rexport info": Call("resnet20"),
    "rexport completion": Call("bash"),
    "rbench run": _refusal("missing.onnx", 6, "model-missing"),
    "rbench load": _refusal("missing.onnx", 6, "model-missing"),
    "rbench tune": _refusal("missing.onnx", 6, "model-missing"),
    "rbench report": Call("{results} --markdown -"),
    "rbench compare": Call("{results} {results}"),
    "rbench merge": Call("{results} -o all.jsonl"),
    "rbench paper train": _refusal("resnet20 --data missing", 2, "dataset-unknown"),
    "rbench paper degradation": _refusal("--so-far", *MISSING),
    "rbench paper depth": _refusal("--so-far", *MISSING),
    "rbench paper shortcuts": _refusal("--so-far", *MISSING),
    "rbench paper responses": _refusal("plain20=missing.pth --data fashion-mnist-sample", *MISSING),
    "rbench paper gradients": _refusal("--data missing", 2, "dataset-unknown"),
    "rbench paper identity": _refusal("plain20=missing.pth --data fashion-mnist-sample", *MISSING),
    "rbench doctor": _refusal("--jsonn", 2, "usage"),
    "rbench completion": Call("zsh"),
}
"""A call of each command. Those that train, measure or need PyTorch are refused here; ``HEAVY`` has calls that work."""

HEAVY = {
    "rexport onnx": Call("resnet20 --weights bundled --precision int8 --out out/"),
    "rbench run": Call("{artifact} --backend onnxruntime --no-roofline --processes 1 --duration 0.02 --limit 20"),
}


def faults(surrounding: Surrounding, call: Call, outcome: Outcome, folder: Path) -> list[str]:
    """Return what the command should not have done in the surrounding, in words."""
    code = surrounding.code if call.code == 0 and call.prints and surrounding.code else call.code
    error = "output-not-written" if code != call.code else call.error
    found = [] if outcome.code == code else [f"exit code {outcome.code} in place of {code}"]
    found += [f"{word} in stderr" for word in ("Traceback", "internal", "Exception ignored") if word in outcome.stderr]
    if "2>" not in surrounding.redirections and error_codes(outcome.stderr) != ([error] if error else []):
        found.append(f"errors {error_codes(outcome.stderr)} in place of {error}")
    if surrounding.stdout == "nothing" and outcome.stdout:
        found.append("stdout is not empty")
    if surrounding.stdout != "nothing" and bool(outcome.stdout) != call.prints:
        found.append(f"{len(outcome.stdout)} bytes on stdout")
    if surrounding.variables.get("PYTHONIOENCODING") == "ascii" and not outcome.stdout.isascii():
        found.append("stdout is not ASCII")
    found += [f"{path.name} is left over" for path in folder.rglob(".*.tmp")]
    return [f"{fault}: {outcome.stderr[-400:]}" for fault in found]
