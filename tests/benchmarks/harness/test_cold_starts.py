from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.harness import cold_starts
from benchmarks.harness.cold_starts import cold_start, disk_bytes, load_of
from benchmarks.records.samples import STEPS, ColdStart
from benchmarks.report.load import sections
from exporter.document.blocks import Table
from runtimes.errors import BackendUnavailableError, CheckFailedError, CompatibilityError, ResourceError, RexportError
from tests.benchmarks.results import EMPTY
from tests.benchmarks.scripts import JOB, SCRIPT, artifact, foreign, read
from tests.documents import remarks
from tests.refusals import refuses

START = ColdStart(python_s=0.25, import_s=0.5, open_s=1.0, first_s=0.125, steady_s=0.0625, peak_bytes=50_000_000)
STARTS = [
    START,
    replace(START, open_s=3.0, peak_bytes=60_000_000),
    replace(START, import_s=0.75, first_s=0.5),
    replace(START, first_s=0.25),
    replace(START, python_s=0.125, peak_bytes=None),
]


def test_a_load_is_what_the_processes_told_to_the_digit() -> None:
    load = load_of(STARTS, 1_500_000)
    assert load.services_s == (0.125, 0.125, 0.5, 0.25, 0.125)
    assert load.responses_s == (1.875, 3.875, 2.5, 2.0, 1.75)
    assert load.achieved_per_s == 5 / 12
    assert load.steps_s == (
        ("Python start", 0.25),
        ("import", 0.5),
        ("open", 1.0),
        ("first call", 0.125),
        ("steady call", 0.0625),
    )
    assert (load.shape, load.disk_bytes, load.peak_bytes) == ("cold", 1_500_000, 60_000_000)


def test_a_cold_row_is_shown_step_by_step() -> None:
    figures = Figures(replace(EMPTY, notes=(cold_starts.PAGE_CACHE,), load=load_of(STARTS, 1_500_000)))
    assert figures.p50 is not None
    assert (figures.p50.value, figures.p99, figures.peak_bytes) == (2.0, None, 60_000_000)
    (section,) = sections([figures])
    (table,) = section.all_of(Table)
    assert list(table.headings[:6]) == ["processes", *STEPS]
    assert table.cells[0][:6] == ("5", "250", "500", "1,000", "125", "62.5")
    assert table.cells[0][-2:] == ("60.0", "1.5")
    assert f"cold start: {cold_starts.PAGE_CACHE}" in remarks(section)


def test_real_processes_tell_of_every_step(tmp_path: Path) -> None:
    steps: list[str] = []
    place = foreign(tmp_path, replace(SCRIPT, delays_s=(0.0625, 0.015625)))
    load = cold_start(replace(JOB, artifact=str(place)), 60.0, steps.append, repeats=2)
    assert [step.split()[2:] for step in steps] == [["1", "of", "2"], ["2", "of", "2"]]
    assert len(load.responses_s) == 2
    assert min(load.services_s) >= 0.0625  # the first call, and no warmer one
    told = dict(load.steps_s)
    assert tuple(told) == STEPS
    assert all(seconds > 0 for seconds in told.values())
    assert told["steady call"] >= 0.015625
    assert min(load.responses_s) > min(load.services_s)
    assert load.disk_bytes == place.stat().st_size
    assert (load.peak_bytes or 0) > 5_000_000


def test_the_first_step_pays_for_nothing_of_the_harness(tmp_path: Path) -> None:
    """What an import costs is paid where an application pays it: nothing is there when ``runtimes`` is imported."""
    program = Path(cold_starts.PROGRAM[-1]).read_text()
    before = program[: program.index("    import runtimes")]
    code = before + "    print(sorted(n for n in ('numpy', 'benchmarks', 'json', 'dataclasses') if n in sys.modules))\n"
    (tmp_path / "program.py").write_text(f"{code}\n\nmain('', '', '', 1, '', 0.0)\n")
    done = subprocess.run([sys.executable, "-I", tmp_path / "program.py"], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_files_of_an_artifact_count(tmp_path: Path) -> None:
    place = artifact(tmp_path)
    sizes = {found.name: found.stat().st_size for found in tmp_path.iterdir() if found.name.startswith("net.fake")}
    assert len(sizes) == 3  # the model, its manifest and its test vectors
    assert disk_bytes(read(place)) == sum(sizes.values())


@pytest.mark.parametrize(
    ("code", "kind", "value"),
    [
        ("sys.exit(5)", BackendUnavailableError, "5"),
        ("sys.exit('told')", CheckFailedError, "told"),
        ("sys.stderr.write('not here\\n'); sys.exit(4)", CompatibilityError, "not here"),
        ("import time; time.sleep(60)", CheckFailedError, "1 s"),
    ],
)
def test_a_process_that_does_not_come_to_its_end_gives_no_number(
    code: str, kind: type[RexportError], value: str, tmp_path: Path
) -> None:
    program = (sys.executable, "-c", f"import sys; {code}")
    with refuses(kind, "cold-start-failed", value):
        cold_start(replace(JOB, artifact=str(foreign(tmp_path))), 1.0, lambda _: None, program=program)


def test_what_the_runtime_refuses_comes_with_its_reason(tmp_path: Path) -> None:
    place = foreign(tmp_path, replace(SCRIPT, fail_at=0))
    with refuses(ResourceError, "cold-start-failed", "call 0"):
        cold_start(replace(JOB, artifact=str(place)), 60.0, lambda _: None)
