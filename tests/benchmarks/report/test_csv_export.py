from __future__ import annotations

import csv
import io

from benchmarks.accuracy.differences import Flips
from benchmarks.records.result import RoofInputs
from benchmarks.records.samples import LoadResult
from benchmarks.report import csv_export
from runtimes.errors import Reason
from tests.benchmarks.results import FASTER, ON_A_GPU, REFERENCE, SKIPPED, change

ROOF = RoofInputs(40_800_000, 1_100_000, 2e11, 2e10)
FLIPS = Flips(better=3, worse=5, p_value=0.727, near_ties=4, real=9, real_share_interval=(0.0005, 0.0017))
LOAD = LoadResult("server", (0.001,), (0.002,), 69.5, rate_per_s=70.0)


def test_csv_has_raw_values_and_intervals_in_two_columns() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_export.csv_text((REFERENCE, FASTER, SKIPPED)))))
    assert [row["backend"] for row in rows] == ["pytorch", "onnxruntime", "openvino"]
    assert float(rows[1]["p50_s"]) == 0.00041
    assert (float(rows[1]["p50_low_s"]), float(rows[1]["p50_high_s"])) == (0.000405, 0.000416)
    assert (rows[2]["p50_s"], rows[2]["p50_low_s"], rows[2]["reason"]) == ("", "", "openvino is not installed")
    assert not {"samples", "environment", "predictions"} & set(rows[0])


def test_headings_are_unique_and_each_cell_has_one() -> None:
    headings, *lines = csv.reader(io.StringIO(csv_export.csv_text((REFERENCE, ON_A_GPU, SKIPPED))))
    assert len(set(headings)) == len(headings)
    assert {len(line) for line in lines} == {len(headings)}


def test_what_a_gpu_told_is_a_column_each() -> None:
    here, none = csv.DictReader(io.StringIO(csv_export.csv_text((ON_A_GPU, REFERENCE))))
    assert (here["cuda_graphs"], here["device_p50_s"], here["device_p50_low_s"]) == ("True", "0.000321", "0.00032")
    assert (here["gpu_before_sm_mhz"], here["gpu_after_sm_mhz"]) == ("345", "1755")
    assert here["gpu_after_throttle"] == "power cap; sync boost"
    assert (none["gpu_after_sm_mhz"], none["cuda_graphs"], none["energy_per_image_j"]) == ("", "", "")


def test_verdict_warnings_roof_flips_and_load_are_columns() -> None:
    warnings = (Reason("a", "p99 drifts"), Reason("b", "few samples"))
    disturbed = change(FASTER, warnings=warnings, disturbances=(Reason("c", "steal"),))
    told = change(disturbed, roofline_share=0.52, roof=ROOF, changed_predictions=FLIPS, load=LOAD)
    row, none = csv.DictReader(io.StringIO(csv_export.csv_text((told, REFERENCE))))
    assert (row["verdict"], row["warnings"], row["disturbances"]) == ("faster", "p99 drifts; few samples", "steal")
    assert (row["command"], row["processes"]) == ("rbench; run; resnet20.onnx; -o; results", "3")
    assert (row["roofline_share"], row["roof_bound"]) == ("0.52", "compute")
    changed = [row[f"changed_predictions_{name}"] for name in ("worse", "real_share_low", "real_share_high")]
    assert changed == ["5", "0.0005", "0.0017"]
    assert (row["validity"], row["validity_reason"]) == ("VALID", "")
    assert (row["load_shape"], row["load_rate_per_s"], row["load_achieved_per_s"]) == ("server", "70.0", "69.5")
    empty = ("roofline_share", "changed_predictions_real_share_low", "load_shape", "warnings")
    assert [none[name] for name in empty] == [""] * 4
