from __future__ import annotations

import csv
import io

from benchmarks import spreadsheet
from tests.benchmarks.rows import FASTER, ON_A_GPU, REFERENCE, SKIPPED


def test_csv_has_raw_values_and_intervals_in_two_columns() -> None:
    rows = list(csv.DictReader(io.StringIO(spreadsheet.csv_text((REFERENCE, FASTER, SKIPPED)))))
    assert [row["runtime"] for row in rows] == ["pytorch", "onnxruntime", "openvino"]
    assert float(rows[1]["p50_s"]) == 0.00041
    assert (float(rows[1]["p50_low_s"]), float(rows[1]["p50_high_s"])) == (0.000405, 0.000416)
    assert (rows[2]["p50_s"], rows[2]["p50_low_s"], rows[2]["reason"]) == ("", "", "openvino is not installed")
    assert not set(spreadsheet.LEFT_OUT) & set(rows[0])


def test_what_a_gpu_told_is_a_column_each() -> None:
    here, none = csv.DictReader(io.StringIO(spreadsheet.csv_text((ON_A_GPU, REFERENCE))))
    assert (here["cuda_graphs"], here["device_p50_s"], here["device_p50_low_s"]) == ("True", "0.000321", "0.00032")
    assert (here["gpu_before_sm_mhz"], here["gpu_after_sm_mhz"]) == ("345", "1755")
    assert here["gpu_after_throttle"] == "power cap; sync boost"
    assert (none["gpu_after_sm_mhz"], none["cuda_graphs"], none["energy_per_image_j"]) == ("", "", "")
    assert None not in here  # no cell without a heading
