from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.machine.environment import Environment, environment
from runtimes import codec

CPUINFO = """processor\t: 0
model name\t: Fast Processor 9
cpu MHz\t\t: 2900.000
flags\t\t: fpu avx2 avx512f amx_tile nonsense

processor\t: 1
model name\t: Slow Processor 1
flags\t\t: fpu
"""


def machine(root: Path) -> Path:
    for name, content in {
        "proc/cpuinfo": CPUINFO,
        "proc/meminfo": "MemTotal:       1024 kB\nMemFree: 1 kB\n",
        "proc/loadavg": "0.50 0.25 0.12 1/100 4242\n",
        "etc/os-release": 'NAME="x"\nPRETTY_NAME="Some System 12"\n',
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "3100000\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_a_machine_that_tells_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("SECRET", "s")
    found = environment(machine(tmp_path))
    assert found.cpu == "Fast Processor 9"
    assert found.instruction_sets == ("avx2", "avx512f", "amx_tile")
    assert found.memory_bytes == 1 << 20
    assert found.system == "Some System 12"
    assert found.governor == "performance"
    assert found.frequency_mhz == 3100.0
    assert found.load_average == (0.5, 0.25, 0.12)
    assert found.variables["OMP_NUM_THREADS"] == "2"
    assert "SECRET" not in found.variables


def test_the_frequency_of_a_machine_without_a_governor(tmp_path: Path) -> None:
    machine(tmp_path)
    for place in (tmp_path / "sys/devices/system/cpu/cpu0/cpufreq").iterdir():
        place.unlink()
    found = environment(tmp_path)
    assert (found.governor, found.frequency_mhz) == ("unknown", 2900.0)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = environment(tmp_path)
    assert (found.governor, found.system, found.memory_bytes) == ("unknown", "unknown", 0)
    assert found.instruction_sets == ()
    assert found.frequency_mhz is None
    assert found.load_average is None


def test_this_machine_survives_json() -> None:
    found = environment()
    assert found.usable_processors >= 1
    assert "numpy" in found.packages
    assert codec.loads(Environment, codec.dumps(found)) == found
