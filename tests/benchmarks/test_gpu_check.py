"""The script that anyone with a GPU runs, tried here on the processor: its own steps are what is tested."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.records import store

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "gpu_check.sh"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")


def gpu_check(*arguments: object, script: Path = SCRIPT, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, env=environment
    )


TRIAL = ("--device", "cpu", "--quick")
ONE_RUNTIME = ("--", "--backend", "onnxruntime")


@pytest.mark.slow
def test_a_trial_fills_one_folder_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    begun = gpu_check(folder, *TRIAL, "--no-tests", "--limit-s", 0, *ONE_RUNTIME)
    assert begun.returncode == 10, begun.stdout
    assert "ncomplete" in begun.stdout
    done = gpu_check(folder, *TRIAL, "--no-tests", *ONE_RUNTIME)
    assert done.returncode == 0, done.stdout
    names = {"results.jsonl", "results.md", "results.html", "complete.json", "log.txt"}
    assert set(os.listdir(folder)) == names
    results = store.read(folder / "results.jsonl")
    assert [(each.identity.backend, each.status, each.identity.batch) for each in results] == [
        ("pytorch", "ok", 1),
        ("onnxruntime", "ok", 1),
    ]
    assert results[1].identity.trained
    assert results[1].asked.cuda_graphs is None
    assert "missing: " in done.stdout or "here: " in done.stdout
    assert "onnxruntime" in (folder / "results.html").read_text()
    assert "onnxruntime fp32" in (folder / "log.txt").read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script in a project of its own, whose packages are stand-ins that say what they were asked."""
    project = tmp_path / "project"
    for name in ("scripts", "tests"):
        (project / name).mkdir(parents=True)
    shutil.copy(SCRIPT, project / "scripts")
    (project / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nmarkers = ["gpu: g", "tensorrt: t", "slow: s"]\naddopts = ["--strict-markers"]\n'
    )
    (project / "scripts" / "__init__.py").touch()
    (project / "scripts" / "inventory.py").write_text("print('inventory')")
    (project / "scripts" / "gpu_matrix.py").write_text("import sys; print('matrix', *sys.argv[1:])")
    return project / "scripts" / "gpu_check.sh"


MARKED = (
    "import pytest\n@pytest.mark.gpu\ndef test_gpu(): assert {}\ndef test_other(): assert False\n"
    "@pytest.mark.gpu\n@pytest.mark.slow\ndef test_slow(): assert False\n"
)


def test_a_failed_test_fails_the_script_and_all_is_measured(copy: Path, tmp_path: Path) -> None:
    marked, folder = copy.parents[1] / "tests" / "test_it.py", tmp_path / "out"
    (copy.parents[1] / "tests" / "test_heavy.py").write_text("import nothing_that_is_here\n")
    marked.write_text(MARKED.format(False))
    failed = gpu_check(folder, "--quick", script=copy)
    assert failed.returncode == 1, failed.stdout
    assert "tests: failed" in failed.stdout
    assert f"matrix {folder} --device cuda --quick" in failed.stdout
    assert "1 failed," in (folder / "tests.log").read_text()
    marked.write_text(MARKED.format(True))
    passed = gpu_check(folder, script=copy)
    assert passed.returncode == 0, passed.stdout
    assert "1 passed," in passed.stdout
    assert set(os.listdir(folder)) == {"log.txt", "tests.log"}
    third = gpu_check(folder, script=copy)  # they passed: not again
    assert third.returncode == 0
    assert "== tests" not in third.stdout


def test_left_out_tests_are_not_called_passed(copy: Path, tmp_path: Path) -> None:
    left_out = "import pytest\n@pytest.mark.gpu\n@pytest.mark.skip(reason='no GPU')\ndef test_gpu(): pass\n"
    (copy.parents[1] / "tests" / "test_it.py").write_text(left_out)
    for _ in range(2):  # so they are tried again the next time
        done = gpu_check(tmp_path / "out", script=copy)
        assert done.returncode == 0, done.stdout
        assert "tests: none ran" in done.stdout
        assert "all passed" not in done.stdout


def test_without_marked_tests_it_says_so(copy: Path, tmp_path: Path) -> None:
    (copy.parents[1] / "tests" / "test_it.py").write_text("def test_other(): assert False\n")
    done = gpu_check(tmp_path / "out", script=copy)
    assert done.returncode == 0, done.stdout
    assert "gpu or tensorrt" in done.stdout
    assert not (tmp_path / "out" / "tests.log").exists()


def test_the_time_is_for_all_of_it(copy: Path, tmp_path: Path) -> None:
    """A test that is ended ends its worker, which leads a session of its own, as the benchmark's do."""
    place = tmp_path / "worker"
    (copy.parents[1] / "tests" / "test_it.py").write_text(
        "import pathlib, pytest, subprocess\n@pytest.mark.gpu\ndef test_gpu():\n"
        "    process = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        f"    pathlib.Path({str(place)!r}).write_text(str(process.pid))\n"
        "    try:\n        process.wait()\n    finally:\n        process.kill(); process.wait()\n"
    )
    done = gpu_check(tmp_path / "out", "--limit-s", 24, script=copy, timeout=90)
    assert done.returncode == 10, done.stdout
    assert done.stdout.index("== tests") < done.stdout.index("matrix ")
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)


def test_the_tests_of_streams_come_first(copy: Path, tmp_path: Path) -> None:
    (copy.parents[1] / "tests" / "gpu").mkdir()
    (copy.parents[1] / "tests" / "gpu" / "test_streams.py").write_text(MARKED.format("'first' == ''"))
    (copy.parents[1] / "tests" / "test_it.py").write_text(MARKED.format("'second' == ''"))
    done = gpu_check(tmp_path / "out", script=copy)
    assert done.returncode == 1
    tests = (tmp_path / "out" / "tests.log").read_text()
    assert 0 < tests.index("'first' == ''") < tests.index("'second' == ''")


def test_where_all_the_time_is_taken_the_tests_are_not_run(copy: Path, tmp_path: Path) -> None:
    (copy.parents[1] / "tests" / "test_it.py").write_text(MARKED.format(False))
    (copy.parents[1] / "scripts" / "inventory.py").write_text("import time; time.sleep(1.5)")
    done = gpu_check(tmp_path / "out", "--limit-s", 1, script=copy)
    assert done.returncode == 10, done.stdout
    assert "tests: not run:" in done.stdout
    assert not (tmp_path / "out" / "tests.log").exists()


@pytest.mark.parametrize("code", [1, 5, 10])
def test_the_exit_code_of_the_measuring_is_the_scripts(copy: Path, tmp_path: Path, code: int) -> None:
    (copy.parents[1] / "scripts" / "gpu_matrix.py").write_text(f"raise SystemExit({code})")
    assert gpu_check(tmp_path / "out", "--no-tests", script=copy).returncode == code


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((), "FOLDER"),
        (("a", "b"), "also b"),
        (("a", "--fast"), "--fast"),
        (("a", "--device", "tpu"), "tpu"),
        (("a", "--limit-s", "soon"), "soon"),
        (("a", "--limit-s"), "--limit-s"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], value: str) -> None:
    done = gpu_check(*arguments)
    first = done.stdout.splitlines()[0]
    assert done.returncode == 2
    assert first.startswith("error: " if arguments else "usage: ")
    assert value in first


def test_help() -> None:
    done = gpu_check("--help")
    assert done.returncode == 0
    assert all(f" {code} " in done.stdout for code in (0, 1, 2, 5, 10))
