"""``rbench paper`` as it is typed, on the bundled sample and on tiny schedules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.cli import main, rbench
from benchmarks.paper.training.run import CHECKPOINT, CURVE, open_run
from benchmarks.records import findings
from tests.exporter.command_line import here
from tests.refusals import error_codes

ROOT = Path(__file__).parents[3]
TINY = ("--data", "fashion-mnist-sample", "--limit", "160", "--scale", "0.00007", "--threads", "1")


def run_paper(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "benchmarks.cli", "paper", *words)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.slow
def test_degradation_trains_and_draws(tmp_path: Path) -> None:
    words = ("degradation", "--network", "plain20", "--network", "resnet20", "--seeds", "2", *TINY, "-o", str(tmp_path))
    done = run_paper(*words)
    found = findings.read(tmp_path / "degradation.findings.json")
    assert found.provenance.images == {"train": 144, "validation": 16, "test": 160}
    assert found.provenance.command == f"rbench paper {' '.join(words)}"
    assert {row[0] for row in found.tables[0].rows} == {"plain20", "resnet20"}
    assert (tmp_path / "degradation.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "degradation.svg").read_text()
    assert "resnet20" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-4])) <= 100
    lines = (tmp_path / "runs" / "resnet20-seed1" / CURVE).read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3, 4]
    assert "--so-far" not in done.stdout
    so_far = run_paper(*words, "--so-far")
    assert so_far.stdout == done.stdout
    assert (
        so_far.stderr
        == "warning[options-without-effect]: no effect with --so-far: --data, --limit, --scale, --threads\n"
    )


@pytest.mark.slow
def test_the_same_command_goes_on_after_its_time_is_over(tmp_path: Path) -> None:
    words = ("train", "resnet20", *TINY, "--shortcut", "B", "-o", str(tmp_path / "run"))
    longer = tuple("0.0003" if word == "0.00007" else word for word in words)
    left = run_paper(*longer, "--stop-after", "1", code=1)
    assert error_codes(left.stderr) == ["training-time-over"]
    assert "option B, seed" in left.stderr
    assert (tmp_path / "run" / CHECKPOINT).exists()
    done = run_paper(*longer)
    assert done.stdout == f"{tmp_path / 'run' / 'weights.safetensors'}\n"
    assert open_run(tmp_path / "run").outcome is not None
    export_by_the_named_command(done, tmp_path)


def export_by_the_named_command(done: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    """What the training printed last makes a file of the trained weights."""
    (command,) = [line for line in done.stderr.splitlines() if line.startswith("rexport onnx")]
    words = command.split()[1:]
    made = subprocess.run(
        (sys.executable, "-m", "exporter.cli", *words, "-o", str(tmp_path / "x.onnx")),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (made.returncode, made.stdout) == (0, f"{tmp_path / 'x.onnx'}\n"), made.stderr


@pytest.mark.parametrize(
    ("words", "code", "value"),
    [
        (("train", "resnet21", *TINY), 2, "'resnet21'"),
        (("train", "resnet20", *TINY, "--epochs", "2"), 2, "error[scale-and-epochs]"),
        (("train", "resnet20", "--data", "nowhere/at-all"), 6, "nowhere/at-all"),
        (("shortcuts", "--network", "plain20", *TINY), 2, "plain20"),
        (("train", "resnet20", "--device", "cuda", *TINY), 5, "CUDA"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words: tuple[str, ...], code: int, value: str, tmp_path: Path) -> None:
    import torch

    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = here(main, "paper", *words, "-o", str(tmp_path / "x"))
    assert done.code == code
    assert value in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_help_names_the_experiments_and_imports_no_framework() -> None:
    done = CliRunner().invoke(rbench, ["paper", "--help"])
    for name in ("train", "degradation", "depth", "shortcuts", "responses", "gradients", "identity"):
        assert name in done.output
    script = (
        "import sys; from benchmarks.cli import rbench; rbench(['paper', 'train', '--help'], standalone_mode=False); "
    )
    script += "print('torch' in sys.modules)"
    done_ = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, cwd=ROOT, check=True)
    assert done_.stdout.splitlines()[-1] == "False"
