"""What the comparisons conclude from runs whose errors are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.paper.experiments import curves as curves_module
from benchmarks.paper.experiments.comparisons import (
    degradation_findings,
    depth_findings,
    limits,
    shortcuts_findings,
)
from benchmarks.paper.experiments.curves import Curves
from benchmarks.paper.training.run import CURVE, RUN
from benchmarks.paper.training.step import Arithmetic
from benchmarks.records.findings import Findings
from runtimes import codec
from runtimes.errors import UsageError
from tests.benchmarks.paper.finished import curves, points, run
from tests.refusals import refuses

PAPER_LIKE = {
    "plain20": [(0.05, 0.10), (0.051, 0.101), (0.049, 0.102)],
    "plain56": [(0.09, 0.13), (0.091, 0.131), (0.093, 0.132)],
    "resnet20": [(0.02, 0.09), (0.021, 0.088), (0.022, 0.089)],
    "resnet56": [(0.001, 0.07), (0.002, 0.071), (0.001, 0.072)],
}


def networks(**changed: list[tuple[float, float]]) -> list[Curves]:
    return [curves(name, errors) for name, errors in (PAPER_LIKE | changed).items()]


def degraded(**changed: list[tuple[float, float]]) -> Findings:
    return degradation_findings(networks(**changed), "rbench paper degradation")


def note_codes(found: list[Curves]) -> list[str]:
    return [note.code for note in limits(found)]


def test_errors_as_the_papers_confirm_degradation() -> None:
    found = degraded()
    assert found.outcome == "confirmed"
    assert [check.outcome for check in found.checks] == ["confirmed"] * 5
    for value in ("9.13 ± 0.15 %", "plain56", "5.00 ± 0.10 %", "plain20", "+4.13 [", "over seeds"):
        assert value in found.checks[0].found
    assert list(found.notes) == [note.sentence for note in limits(networks())]
    assert found.provenance.seeds == (0, 1, 2)
    assert found.provenance.scale == 0.1


def test_errors_the_other_way_round_contradict_it() -> None:
    found = degraded(plain56=PAPER_LIKE["plain20"], plain20=PAPER_LIKE["plain56"])
    assert found.outcome == "contradicted"
    assert [check.outcome for check in found.checks][:2] == ["contradicted"] * 2


def test_seeds_that_overlap_leave_it_undecided() -> None:
    found = degraded(resnet56=[(0.02, 0.09), (0.01, 0.08), (0.03, 0.1)])
    assert [check.outcome for check in found.checks][2:4] == ["undecided"] * 2
    assert found.outcome == "undecided"


def test_single_seeds_are_noted() -> None:
    single = {name: errors[:1] for name, errors in PAPER_LIKE.items()}
    assert "over images" in degraded(**single).checks[0].found
    assert "single-seed" in note_codes(networks(**single))
    assert "single-seed" not in note_codes(networks())


def test_the_panels_are_the_curves_in_percent() -> None:
    plain, residual = degraded().panels
    assert [line.label for line in plain.lines] == [
        "plain20, training",
        "plain20, test",
        "plain56, training",
        "plain56, test",
    ]
    training, test = residual.lines[:2]
    assert training.dashed
    assert not test.dashed
    assert list(training.x) == [1600, 3200, 4800, 6400]
    assert training.y[-1] == pytest.approx(100 * (0.021 + 0.3 / 4))
    assert training.low[-1] == pytest.approx(100 * (0.02 + 0.3 / 4))
    assert training.high[-1] == pytest.approx(100 * (0.022 + 0.3 / 4))
    assert [mark.family for mark in residual.marks] == ["resnet20", "resnet56"]
    assert [mark.y for mark in residual.marks] == pytest.approx([8.75, 6.97])
    assert plain.y_range == residual.y_range


def test_the_table_has_the_papers_numbers() -> None:
    own, paper = degraded().tables
    rows = {row[0]: row[1:] for row in own.rows}
    assert rows["resnet56"] == ("0.85 M", "125.5 M", "3", "0.13 ± 0.06", "7.10 ± 0.10", "100.0")
    assert "CIFAR-10" in paper.caption
    assert paper.rows == (("resnet20", "8.75"), ("resnet56", "6.97"))
    assert len(degradation_findings([curves("plain20", PAPER_LIKE["plain20"])], "x").tables) == 1


def test_only_residual_nets_are_judged_by_themselves() -> None:
    found = degradation_findings([curves(name, PAPER_LIKE[name]) for name in ("resnet20", "resnet56")], "x")
    assert len(found.checks) == 2
    assert len(found.panels) == 1


def test_depth_compares_18_layers_with_34() -> None:
    errors = {"plain18": 0.10, "plain34": 0.13, "resnet18": 0.09, "resnet34": 0.05}
    found = depth_findings([curves(name, [(error, error)] * 2, "A") for name, error in errors.items()], "x")
    assert [check.outcome for check in found.checks] == ["confirmed"] * 3
    assert "32 pixels" in found.notes[-1]
    assert "ImageNet" in found.tables[1].caption
    assert [row[-1] for row in found.tables[1].rows] == ["27.94", "28.54", "27.88", "25.03"]


def test_shortcut_options_are_compared_with_table_3() -> None:
    found = shortcuts_findings(
        [
            curves("resnet20", [(0.02, error), (0.02, error + 0.0001)], option)
            for option, error in zip("ABC", (0.09, 0.08, 0.0801), strict=True)
        ],
        "x",
    )
    assert [check.outcome for check in found.checks] == ["confirmed", "undecided"]
    parameters = [row[1] for row in found.tables[0].rows]
    assert parameters == ["0.27 M", "0.27 M", "0.28 M"]
    assert "ResNet-34" in found.tables[1].caption
    assert found.tables[1].rows == (("A", "25.03"), ("B", "24.52"), ("C", "24.19"))


def put(folder: Path, name: str, seed: int = 0, done: bool = True) -> Path:
    folder.mkdir()
    one = run(name, seed, 0.1, 0.2)
    (folder / RUN).write_text(codec.dumps(one if done else dataclasses.replace(one, outcome=None)))
    (folder / CURVE).write_text("".join(f"{codec.dumps(point)}\n" for point in points(0.1, 0.2)))
    return folder


def test_runs_on_disk_are_gathered_by_network(tmp_path: Path) -> None:
    folders = [put(tmp_path / "a", "plain20"), put(tmp_path / "b", "resnet20"), put(tmp_path / "c", "plain20", seed=1)]
    found = curves_module.gather_runs(folders)
    assert [(one.label, len(one.runs)) for one in found] == [("plain20", 2), ("resnet20", 1)]
    assert found[0].points[1] == points(0.1, 0.2)


def test_unfinished_runs_and_other_data_are_refused(tmp_path: Path) -> None:
    good, unfinished = put(tmp_path / "a", "plain20"), put(tmp_path / "b", "plain20", done=False)
    with refuses(UsageError, "run-unfinished", unfinished, "--so-far"):
        curves_module.gather_runs([good, unfinished])
    other = put(tmp_path / "c", "plain20")
    (other / RUN).write_text((other / RUN).read_text().replace("0" * 64, "1" * 64))
    with refuses(UsageError, "runs-differ", other):
        curves_module.gather_runs([good, other])


def test_unfinished_runs_are_cut_where_all_of_them_have_come(tmp_path: Path) -> None:
    done, behind = put(tmp_path / "a", "plain20"), put(tmp_path / "b", "plain56", done=False)
    lines = (behind / CURVE).read_text().splitlines(keepends=True)
    (behind / CURVE).write_text("".join(lines[:3]))
    found = curves_module.gather_runs([done, behind], so_far=True)
    assert [[point.iteration for point in one.points[0]] for one in found] == [[1600, 3200, 4800]] * 2
    assert list(found[0].errors("train")) == pytest.approx([0.1 + 0.3 / 3])
    assert found[0].until == 4800
    (stopped,) = (note for note in limits(found) if note.code == "runs-stopped")
    assert "4,800 of 6,400" in stopped.sentence
    assert degradation_findings(found, "x").tables[0].rows[0][4] == "20.00"
    (behind / CURVE).write_text("")
    with refuses(UsageError, "run-without-points", behind):
        curves_module.gather_runs([done, behind], so_far=True)


def test_a_whole_curve_without_an_outcome_is_unfinished(tmp_path: Path) -> None:
    found = curves_module.gather_runs(
        [put(tmp_path / "a", "plain20"), put(tmp_path / "b", "plain56", done=False)], so_far=True
    )
    assert [one.until for one in found] == [6400, 6400]
    assert list(found[0].errors("train")) == pytest.approx([0.1 + 0.3 / 4])  # that of the curve, as the other's


def test_finished_runs_are_not_cut(tmp_path: Path) -> None:
    (found,) = curves_module.gather_runs([put(tmp_path / "a", "plain20")], so_far=True)
    assert found.until is None
    assert list(found.errors("train")) == [0.1]


def test_provenance_names_every_machine() -> None:
    one = curves("plain20", [(0.1, 0.2)])
    (sitting,) = one.runs[0].sittings
    later = dataclasses.replace(
        sitting, since=3200, arithmetic=Arithmetic("cuda", "bf16", True), machine="a GPU", versions={"torch": "3"}
    )
    one = dataclasses.replace(one, runs=(dataclasses.replace(one.runs[0], sittings=(sitting, later)),))
    origin = curves_module.provenance([one], "x")
    for machine in ("a machine", "a GPU"):
        assert machine in origin.machine
    assert origin.versions == {"torch": "2, 3"}
    for part in ("fp32 on cpu", "2 threads", "bf16, compiled", "on cuda", "3%"):
        assert part in origin.recipe
