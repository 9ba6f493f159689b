from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.machine import gpu, gpu_monitor
from benchmarks.machine.gpu import EXCLUSIVE, UNKNOWN, Gauge, Gpu, GpuState
from tests.benchmarks.nvml import MIB, Card, Nvml, NVMLLibraryMismatchError, installed, steady
from tests.runtimes.backends.tensorrt.cudadouble import Recorder, gpu_uuid
from tests.runtimes.backends.tensorrt.driverdouble import install

NAMES = [name for name in vars(Nvml) if name.startswith(("nvml", "NVML_"))]


@pytest.mark.parametrize("name", NAMES)
def test_the_double_has_nothing_that_the_real_library_has_not(name: str) -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    real, double = getattr(pynvml, name), getattr(Nvml, name)
    if not callable(double):
        assert double == real
        return
    mine = list(inspect.signature(double).parameters)[1:]
    theirs = inspect.signature(inspect.unwrap(real)).parameters.values()
    needed = [one.name for one in theirs if one.default is inspect.Parameter.empty]
    assert len(mine) == len(needed) or needed == ["args", "kwargs"]  # wrapped by hand


def test_every_name_that_is_used_is_in_the_double() -> None:
    texts = (Path(module.__file__ or "").read_text() for module in (gpu, gpu_monitor))
    used = set(re.findall(r"\b(?:nvml[A-Z]\w+|NVML_\w+)", "\n".join(texts)))
    assert used <= set(NAMES)


def test_what_a_gpu_is_and_how_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Card(reasons=0x4 | 0x20))
    assert gpu.missing() is None
    assert gpu.gpus() == (
        Gpu(
            *("NVIDIA H200", "GPU-0", "580.159.03", "13.0", "9.0", 143_771 * MIB, 1980, 700.0),
            power_limit_default_w=700.0,
            compute_mode="default",
            mig=False,
            mps=False,
            persistence=True,
            ecc=True,
            application_mhz=1980,
        ),
    )
    found = gpu.gauge("cuda")
    assert found is not None
    assert found.state() == GpuState(
        name="NVIDIA H200",
        uuid="GPU-0",
        sm_mhz=1980,
        memory_mhz=3201,
        power_w=512.25,
        temperature_c=41,
        throttle=("power cap", "software thermal slowdown"),
        energy_j=1000.0,
        memory_used_bytes=600 * MIB,
    )


def test_a_reason_without_a_word_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Card(reasons=0x1 | 0x400))
    found = gpu.gauge("cuda")
    assert found is not None
    assert found.state().throttle == ("idle", "reason 0x400")


def test_what_a_gpu_does_not_support_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = [name.removeprefix("nvmlDeviceGet") for name in NAMES]
    installed(monkeypatch, Card(lacks=everything))
    assert gpu.gpus() == (Gpu(UNKNOWN, UNKNOWN, "580.159.03", "13.0", UNKNOWN, None, None, None),)
    found = gpu.gauge("cuda")
    assert found is not None
    assert found.state() == GpuState(UNKNOWN, UNKNOWN, None, None, None, None, None, None, None)


def test_without_a_driver_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Card(), driver=False)
    assert "Driver Not Loaded" in (gpu.missing() or "")
    assert (gpu.gpus(), gpu.gauge("cuda")) == ((), None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install nvidia-ml-py" in (gpu.missing() or "")
    assert (gpu.gpus(), gpu.gauge("cuda")) == ((), None)


def test_the_real_library_without_a_driver_says_so() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    if gpu.missing() is None:
        pytest.skip("this machine has an NVIDIA driver")
    assert "NVIDIA driver responds" in (gpu.missing() or "")
    assert gpu.gpus() == ()


def test_of_several_gpus_the_one_is_read_that_cuda_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = Card(uuid="GPU-slow"), Card(uuid="GPU-fast")
    installed(monkeypatch, slow, fast, cuda=("fast", "slow"))
    for device, uuid in (("cuda", "GPU-fast"), ("cuda:1", "GPU-slow")):
        found = gpu.gauge(device)
        assert found is not None
        assert found.state().uuid == uuid
    installed(monkeypatch, slow, fast)
    assert gpu.gauge("cuda") is None  # which of the two is unclear
    installed(monkeypatch, slow, fast, cuda=("another",))
    assert gpu.gauge("cuda") is None


@pytest.mark.parametrize("cuda", [(), ("another",)])
def test_the_only_gpu_is_read_whatever_cuda_calls_it(monkeypatch: pytest.MonkeyPatch, cuda: tuple[str, ...]) -> None:
    installed(monkeypatch, Card(uuid="GPU-only"), cuda=cuda)
    found = gpu.gauge("cuda")
    assert found is not None
    assert found.state().uuid == "GPU-only"
    assert gpu.gauge("cuda:1") is None


def test_a_mig_device_has_memory_of_its_own_and_no_power(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Card(uuid="GPU-whole", mig=1, sm_mhz=1755, used_bytes=steady(90_000 * MIB))
    absent = ["ClockInfo", "PowerUsage", "Temperature", "CurrentClocksEventReasons", "TotalEnergyConsumption"]
    part = Card("NVIDIA H200 MIG 1g.18gb", "MIG-part", whole=whole, used_bytes=steady(700 * MIB), lacks=absent)
    installed(monkeypatch, whole, part, cuda=("part",))
    found = gpu.gauge("cuda")
    assert found is not None
    state = found.state()
    assert (state.uuid, state.memory_used_bytes, state.mig_device) == ("MIG-part", 700 * MIB, True)
    assert (state.sm_mhz, state.temperature_c, state.throttle) == (1755, 41, ())
    assert (state.power_w, state.energy_j) == (None, None)
    assert found.gpu().mig


def test_a_part_that_cuda_does_not_name_is_not_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Card(uuid="GPU-whole", mig=1), cuda=("whole",))
    assert gpu.gauge("cuda") is None


def test_cuda_tells_the_identifier_and_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = install(monkeypatch, Recorder(devices=2, memory_bytes=5 * MIB))
    assert gpu._identifier("cuda:1") == str(gpu_uuid(1))
    assert gpu._identifier("cuda:2") == ""
    assert gpu.free_bytes("cuda:1") == 5 * MIB
    assert recorder.used["cudaMemGetInfo"] == {1}
    recorder.devices = 0
    assert (gpu._identifier("cuda"), gpu.free_bytes("cuda")) == ("", None)


def test_on_a_processor_nothing_is_read_or_imported() -> None:
    code = (
        "import sys\nfrom benchmarks.machine.gpu_monitor import GpuMonitor\n"
        "watch = GpuMonitor('cpu')\n"
        "with watch.turn(): watch.note_state()\n"
        "print(watch.read_state(), watch.read_memory(), watch.peak_bytes(), watch.conditions(), watch.last_state)\n"
        "print(watch.measure_energy(lambda: 1 / 0), sorted({'pynvml', 'cuda'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*["None"] * 6, "[]"]


def test_a_missing_name_of_an_older_library_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that ``nvidia-ml-py`` or the driver's library lacks costs the value, never the row."""
    double = installed(monkeypatch, Card(reasons=0x4))
    for name in NAMES:
        if name not in ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
            monkeypatch.delattr(Nvml, name)
    meter = Gauge(double, Card())
    assert set(vars(meter.state()).values()) == {UNKNOWN, None, False}
    assert meter.gpu().compute_mode is None
    lists = (meter.processes(), meter.utilisation(), meter.utilisation_by_process(0), meter.power_limited_s())
    assert lists == (None,) * 4


def test_a_reason_whose_name_the_library_lacks_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    double = installed(monkeypatch, Card())
    monkeypatch.delattr(Nvml, "nvmlClocksEventReasonSwPowerCap")
    assert Gauge(double, Card(reasons=0x4 | 0x8)).state().throttle == ("reason 0x4", "hardware slowdown")


def test_how_a_gpu_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(compute_mode=3, mig=1, clients=[7], persistence=0, ecc=0, power_limit_mw=500_000)
    installed(monkeypatch, card)
    (found,) = gpu.gpus()
    assert (found.compute_mode, found.mig, found.mps, found.persistence, found.ecc) == (
        EXCLUSIVE,
        True,
        True,
        False,
        False,
    )
    assert (found.power_limit_w, found.power_limit_default_w) == (500.0, 700.0)
    installed(monkeypatch, Card(compute_mode=9))
    assert gpu.gpus()[0].compute_mode == "mode 9"


def test_use_by_process_is_a_mean_of_the_samples_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """The double adds an older sample, which does not count."""
    double = installed(monkeypatch, Card())
    meter = Gauge(double, Card(shares={7: [20, 40], 8: [5]}))
    assert meter.utilisation_by_process(1000) == {7: pytest.approx(0.3), 8: 0.05}
    assert Gauge(double, Card()).utilisation_by_process(1000) == {}
    assert Gauge(double, Card(lacks=["ProcessUtilization"])).utilisation_by_process(1000) is None


def test_a_driver_older_than_the_library_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def mismatch(*_: object) -> None:
        raise NVMLLibraryMismatchError("Unversioned function called")

    monkeypatch.setattr(Nvml, "nvmlDeviceGetComputeRunningProcesses", mismatch)
    assert Gauge(installed(monkeypatch, Card()), Card()).processes() is None


def test_the_real_mismatch_is_no_nvml_error() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert not issubclass(pynvml.NVMLLibraryMismatchError, pynvml.NVMLError)
