"""What ``trtexec`` is asked for, and what is read from it.

The program is not installed here. A script in its place checks its arguments and writes a file of times in the format
of ``exportJSONTrace`` in ``samples/common/sampleReporting.cpp`` of NVIDIA/TensorRT, as ``TIMES`` shows it.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.worker.trtexec import EngineRun, command_line, measure_engine, read_times
from runtimes.errors import BackendUnavailableError
from tests.refusals import refuses

TIMES = """\
[
  { "startEnqMs" : 1000.31, "endEnqMs" : 1000.32, "startH2dMs" : 1000.35, "endH2dMs" : 1000.35, \
"startComputeMs" : 1000.35, "endComputeMs" : 1000.66, "startD2hMs" : 1000.66, "endD2hMs" : 1000.66, \
"h2dMs" : 0, "computeMs" : 0.3125, "d2hMs" : 0, "latencyMs" : 0.3125 }
, { "startEnqMs" : 1000.62, "endEnqMs" : 1000.63, "startH2dMs" : 1000.66, "endH2dMs" : 1000.66, \
"startComputeMs" : 1000.66, "endComputeMs" : 1000.97, "startD2hMs" : 1000.97, "endD2hMs" : 1000.97, \
"h2dMs" : 0, "computeMs" : 3.14159e-01, "d2hMs" : 0, "latencyMs" : 0.314159 }
]
"""
"""Two queries with ``--noDataTransfers``."""

RUN = EngineRun("/x/net.engine", {"input": (8, 3, 224, 224)}, cuda_graph=True)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Stands in for ``trtexec``: writes ``TIMES`` where it is asked to."""
    return stand_in(tmp_path, f"pathlib.Path(options['exportTimes']).write_text({TIMES!r})")


def stand_in(folder: Path, body: str) -> Path:
    path = folder / "trtexec"
    head = f"""\
        #!{sys.executable}
        import pathlib, sys, time
        options = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
        print("&&&& RUNNING TensorRT.trtexec [TensorRT v101600] # trtexec")
        """
    path.write_text(textwrap.dedent(head) + body + "\n")
    path.chmod(0o755)
    return path


def test_it_is_asked_for_the_same_work() -> None:
    assert command_line("trtexec", RUN, Path("/t/times.json")) == (
        *("trtexec", "--loadEngine=/x/net.engine", "--shapes=input:8x3x224x224", "--useCudaGraph", "--useSpinWait"),
        *("--noDataTransfers", "--warmUp=1000", "--duration=10", "--exportTimes=/t/times.json"),
    )
    fixed = command_line("trtexec", EngineRun("e", {}, cuda_graph=False), Path("t"))
    assert not {word.partition("=")[0] for word in fixed} & {"--shapes", "--useCudaGraph", "--device"}
    assert "--device=1" in command_line("trtexec", EngineRun("e", {}, cuda_graph=False, ordinal=1), Path("t"))


def test_its_times_are_read(program: Path) -> None:
    found = measure_engine(str(program), RUN)
    assert found.compute_s == (0.0003125, 0.000314159)
    assert found.version == "101600"
    assert found.command[:2] == (str(program), "--loadEngine=/x/net.engine")


FAULTS = {
    "fails": ("print('[E] Error: [serialize.cpp] magic tag does not match'); print('bye'); sys.exit(1)", "magic tag"),
    "silent": ("pass", "wrote no times"),
    "damaged": ("pathlib.Path(options['exportTimes']).write_text('[{')", "cannot be read"),
    "other": ("pathlib.Path(options['exportTimes']).write_text('[{\"outMs\": 1}]')", "computeMs"),
    "empty": ("pathlib.Path(options['exportTimes']).write_text('[]')", "cannot be"),
    "hangs": ("time.sleep(60)", "1 s"),
}


@pytest.mark.parametrize(("body", "words"), FAULTS.values(), ids=FAULTS)
def test_a_failure_says_what_went_wrong(tmp_path: Path, body: str, words: str) -> None:
    program = stand_in(tmp_path, body)
    with refuses(BackendUnavailableError, "trtexec-failed", words):
        measure_engine(str(program), RUN, limit_s=1.0 if "sleep" in body else 60.0)


def test_a_program_that_is_none_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "trtexec").write_text("no program")
    with refuses(BackendUnavailableError, "trtexec-failed", "Permission denied"):
        measure_engine(str(tmp_path / "trtexec"), RUN)


@pytest.mark.parametrize("value", ["-1", "0", "NaN", "Infinity"])
def test_times_that_cannot_be_are_refused(value: str) -> None:
    with refuses(BackendUnavailableError, "trtexec-failed"):
        read_times(f'[{{"computeMs": {value}}}]')
