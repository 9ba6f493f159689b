"""What the doctor finds about packages, machine and folders; broken packages are folders of metadata alone."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.doctor import machine, packages
from benchmarks.doctor.findings import Finding
from benchmarks.doctor.gpu_probe import GpuProbe
from benchmarks.machine.environment import Environment, environment
from benchmarks.machine.gpu import Gpu
from runtimes.tensors.cuda import Device
from tests.benchmarks.nvml import Card, installed

CARD = Gpu("NVIDIA H200", "GPU-0", "575.1", "12.9", "9.0", 140 << 30, 1980, 700.0)


def distribution(folder: Path, name: str, version: str, *requires: str, more: str = "") -> None:
    """What pip writes about an installed package, without the package."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    lines = [f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n", more]
    place.joinpath("METADATA").write_text("".join([*lines, *(f"Requires-Dist: {line}\n" for line in requires)]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of packages that Python knows meanwhile."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    return tmp_path


REINSTALL = ("pip", "install", "--force-reinstall", "--no-deps")


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


# Packages


def test_requirements_are_read_from_metadata() -> None:
    assert packages.parse_requirement('onnxruntime-gpu[cuda,cudnn]>=1.24; extra == "gpu"') == packages.Requirement(
        "onnxruntime-gpu", ("cuda", "cudnn"), "1.24", "gpu", "onnxruntime-gpu[cuda,cudnn]>=1.24"
    )
    old = packages.parse_requirement("Nvidia_cuda.runtime (<14,>=13.0) ; extra == 'cuda'")
    assert old is not None
    assert (old.name, old.least, old.extra) == ("nvidia-cuda-runtime", "13.0", "cuda")
    assert packages.parse_requirement('pywin32; sys_platform == "win32"') is None
    assert packages.parse_requirement("???") is None


@pytest.mark.parametrize(
    ("version", "least", "expected"),
    [
        ("1.24", "1.24", True),
        ("1.24.0", "1.24", True),
        ("1.9", "1.24", False),
        ("2.13.0+cpu", "2.13", True),
        ("2.0rc1", "2", True),
        ("10.16.1.11", "11", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, least: str, expected: bool) -> None:
    assert packages.at_least(version, least) is expected


def test_two_packages_of_one_module_are_a_conflict(site: Path) -> None:
    distribution(site, "onnxruntime", "1.32.0")
    distribution(site, "onnxruntime-gpu", "1.31.1")
    finding = only(packages.conflicts(packages.list_installed(), [CARD]))
    assert (finding.status, finding.code) == ("broken", "rival-packages")
    assert finding.subject == "onnxruntime and onnxruntime-gpu"
    assert "onnxruntime-gpu 1.31.1" in finding.what
    assert [command.split()[-1] for command in finding.mend] == ["onnxruntime-gpu"] * 2
    without_gpu = only(packages.conflicts(packages.list_installed(), []))
    assert without_gpu.mend[1].split() == [*REINSTALL, "onnxruntime"]


def test_remains_of_a_removed_package_are_broken(site: Path) -> None:
    distribution(site, "onnxruntime-gpu", "1.31.1")
    (site / "onnxruntime" / "capi").mkdir(parents=True)
    finding = only(packages.conflicts(packages.list_installed(), []))
    assert (finding.status, finding.code) == ("broken", "package-files-missing")
    assert finding.subject == "onnxruntime-gpu"
    assert [command.split() for command in finding.mend] == [[*REINSTALL, "onnxruntime-gpu"]]
    (site / "onnxruntime" / "__init__.py").touch()
    assert only(packages.conflicts(packages.list_installed(), [])).status == "ok"


def test_tensorrt_11_beside_a_provider_for_10_is_a_warning(site: Path) -> None:
    distribution(site, "onnxruntime-gpu", "1.31.1")
    distribution(site, "tensorrt_cu13", "11.4.0.106")
    finding = only(packages.conflicts(packages.list_installed(), [CARD]))
    assert (finding.status, finding.code, finding.mend) == ("warning", "provider-needs-tensorrt-10", ())
    assert "tensorrt-cu13 11.4.0.106" in finding.what
    assert only(packages.conflicts({"onnxruntime-gpu": "1.31.1", "tensorrt": "10.16"}, [])).status == "ok"


def test_bindings_newer_than_the_driver_are_broken() -> None:
    finding = only(packages.conflicts({"cuda-bindings": "13.5.0"}, [CARD]))
    assert (finding.status, finding.code) == ("broken", "cuda-bindings-too-new")
    for version in ("13.5.0", "CUDA 13", "CUDA 12.9"):
        assert version in finding.what
    assert finding.mend == ("pip install 'cuda-bindings>=12.8,<13'",)
    for card in (replace(CARD, cuda="13.0"), replace(CARD, cuda="unknown")):
        assert only(packages.conflicts({"cuda-bindings": "13.5.0"}, [card])).status == "ok"


@pytest.fixture
def extras(site: Path) -> Path:
    """rexport with three extras, and nothing else."""
    gpu = 'onnxruntime-gpu[cuda]>=1.24; extra == "gpu"'
    int8 = ('nncf>=3.0; extra == "int8"', 'onnxruntime>=1.24; extra == "int8"')
    distribution(site, "rexport", "1.0", "numpy", 'onnxruntime>=1.24; extra == "cpu"', gpu, *int8)
    return site


def findings_by_extra(with_gpu: bool = True) -> dict[str, Finding]:
    return {finding.subject: finding for finding in packages.extras(packages.list_installed(), with_gpu)}


def test_extras_that_are_not_installed_name_their_command(extras: Path) -> None:
    assert extras.is_dir()
    assert {name: finding.status for name, finding in findings_by_extra().items()} == dict.fromkeys(
        ("cpu", "gpu", "int8"), "missing"
    )
    assert [part.split()[0] for part in findings_by_extra()["int8"].what.split("; ")] == ["nncf", "onnxruntime"]
    assert findings_by_extra()["int8"].mend == ("pip install 'rexport[int8]'",)
    assert "NVIDIA GPU" in findings_by_extra(with_gpu=False)["gpu"].what
    assert "NVIDIA GPU" not in findings_by_extra()["gpu"].what


def test_an_extra_that_is_there_names_its_versions(extras: Path) -> None:
    distribution(extras, "onnxruntime", "1.32.0")
    assert findings_by_extra()["cpu"] == Finding("extras", "cpu", "ok", "extra-complete", "onnxruntime 1.32.0")
    assert findings_by_extra()["gpu"].mend == ("pip uninstall onnxruntime", "pip install 'rexport[gpu]'")
    assert findings_by_extra(with_gpu=False)["gpu"].mend == ()


def test_a_package_that_is_too_old_is_a_warning(extras: Path) -> None:
    distribution(extras, "onnxruntime", "1.9.0")
    finding = findings_by_extra()["cpu"]
    assert (finding.status, finding.code) == ("warning", "extra-incomplete")
    assert [command.split()[2:] for command in finding.mend] == [["--upgrade", "'rexport[cpu]'"]]
    assert "older than 1.24" in finding.what
    assert "onnxruntime 1.9.0" in finding.what


def test_the_gpu_build_stands_for_the_other_one(extras: Path) -> None:
    distribution(extras, "onnxruntime-gpu", "1.31.1", 'nvidia-curand~=10.0; extra == "cuda"')
    assert findings_by_extra()["cpu"] == Finding("extras", "cpu", "ok", "extra-complete", "onnxruntime-gpu 1.31.1")
    assert findings_by_extra()["int8"].mend == ("pip install 'nncf>=3.0'",)
    assert [part.split()[0] for part in findings_by_extra()["gpu"].what.split("; ")] == ["nvidia-curand", "installed:"]
    distribution(extras, "nvidia-curand", "10.4")
    assert findings_by_extra()["gpu"].status == "ok"
    forced = Finding("runtimes", "x", "broken", "a-code", "y", ("pip install --force-reinstall 'rexport[cpu]'",))
    adapted = packages.adapt_commands(forced, packages.list_installed())
    assert [command.split()[-1] for command in adapted.mend] == ["'rexport[gpu]'"]
    assert packages.adapt_commands(forced, {}) == forced


def test_without_metadata_no_extras_are_known(site: Path) -> None:
    assert site.is_dir()
    assert only(packages.extras({}, False)).status == "missing"


def test_builds_without_a_gpu_are_known() -> None:
    assert packages.for_processors({"torch": "2.13.0+cpu", "onnxruntime": "1.32"}) == ("torch", "onnxruntime")
    assert packages.for_processors({"torch": "2.13.0", "onnxruntime-gpu": "1.31"}) == ()


# rexport and Python


@pytest.mark.parametrize(
    ("python", "status"), [("CPython 3.10.2", "broken"), ("CPython 3.12.1", "ok"), ("CPython 3.19.0", "warning")]
)
def test_python_s_version_is_compared_with_what_rexport_says(site: Path, python: str, status: str) -> None:
    tested = "".join(f"Classifier: Programming Language :: Python :: 3.{minor}\n" for minor in (11, 12))
    distribution(site, "rexport", "1.0", more=f"Requires-Python: >=3.11\n{tested}")
    assert machine.python(python).status == status


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        ('onnxruntime>=1.24; extra == "cpu"', ["ok"]),
        ('onnxruntime>=1.20; extra == "cpu"', ["ok", "warning"]),
    ],
)
def test_a_checkout_that_changed_later_is_a_warning(
    site: Path, monkeypatch: pytest.MonkeyPatch, line: str, statuses: list[str]
) -> None:
    (site / "pyproject.toml").write_text("[project.optional-dependencies]\ncpu = ['onnxruntime>=1.24']\n")
    monkeypatch.setattr(machine, "folder", lambda: site)
    assert [finding.code for finding in machine.installation()] == ["checkout-not-installed"]
    distribution(site, "rexport", "1.0", line, more="Requires-Python: >=3.11\n")
    findings = machine.installation()
    assert [finding.status for finding in findings] == statuses
    assert [command.split()[-2:] for command in findings[-1].mend] == [["-e", str(site)]] * statuses.count("warning")


# The machine


def idle() -> Environment:
    return replace(
        environment(), processors=8, usable_processors=8, governor="performance", load_average=(1.0, 1.0, 1.0)
    )


def finding_on(findings: list[Finding], subject: str) -> Finding:
    return next(finding for finding in findings if finding.subject == subject)


def test_load_and_governor_that_disturb_are_warnings(tmp_path: Path) -> None:
    assert {finding.status for finding in machine.machine(idle(), tmp_path)} == {"ok"}
    disturbed = replace(idle(), governor="powersave", load_average=(3.0, 1.0, 1.0))
    findings = machine.machine(disturbed, tmp_path)
    load, governor = finding_on(findings, "load average"), finding_on(findings, "frequency governor")
    assert (load.status, load.code) == ("warning", "load-high")
    assert (governor.status, governor.code) == ("warning", "governor-changing")
    assert [command.split()[-2:] for command in governor.mend] == [["-g", "performance"]]
    assert {finding.status for finding in machine.machine(replace(idle(), load_average=None), tmp_path)} == {"ok"}


def test_limits_of_the_control_group_are_reported(tmp_path: Path) -> None:
    held = replace(idle(), usable_processors=2, memory_bytes=8 << 30)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box/inner\n")
    (tmp_path / "sys/fs/cgroup/box/inner").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/box/memory.max").write_text(f"{2 << 30}\n")
    (tmp_path / "sys/fs/cgroup/box/inner/memory.max").write_text("max\n")
    findings = machine.machine(held, tmp_path)
    for value in ("2 of 8", "control group"):
        assert value in finding_on(findings, "processors").what
    assert [word for word in finding_on(findings, "memory").what.split() if word[0].isdigit()] == ["8.0", "2.0"]


# GPUs


def gpu_probe(
    gpus: tuple[Gpu, ...], cuda: str | None, nvml: str | None = None, devices: tuple[Device, ...] = ()
) -> GpuProbe:
    return GpuProbe(replace(idle(), gpus=gpus), {}, {}, nvml, cuda, devices)


DEVICE = Device(0, "NVIDIA H200", "9.0", "13.0", 140 << 30)


def test_a_machine_without_a_gpu_is_no_fault(tmp_path: Path) -> None:
    finding = only(machine.gpu(gpu_probe((), "no driver", "no driver"), None, tmp_path))
    assert (finding.status, finding.code, finding.mend) == ("missing", "no-gpu", ())


def test_each_gpu_is_reported(tmp_path: Path) -> None:
    finding = machine.gpu(gpu_probe((CARD,), None), None, tmp_path)[0]
    assert (finding.status, finding.code) == ("ok", "gpu-found")
    for value in ("9.0", "140 GiB", "driver 575.1", "CUDA 12.9"):
        assert value in finding.what
    without = machine.gpu(
        gpu_probe((), None, "nvidia-ml-py is not installed (pip install nvidia-ml-py)", (DEVICE,)), None, tmp_path
    )
    assert [(finding.status, finding.mend) for finding in without] == [
        ("ok", ()),
        ("missing", ("pip install nvidia-ml-py",)),
    ]


def test_a_gpu_that_cuda_cannot_use_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    insufficient = gpu_probe((CARD,), "no GPU can be used: CUDA driver version is insufficient")
    assert [each.status for each in machine.gpu(insufficient, None, tmp_path) if each.status != "ok"] == ["broken"]
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    unseen = machine.gpu(gpu_probe((), "no GPU can be used: no driver", "no NVIDIA driver answers"), None, tmp_path)
    assert [finding.status for finding in unseen] == ["broken", "broken"]
    absent = gpu_probe((CARD,), "cuda-bindings is not installed (pip install cuda-bindings)")
    assert machine.gpu(absent, None, tmp_path)[-1].mend == ("pip install cuda-bindings",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [each.status for each in machine.gpu(insufficient, None, tmp_path) if each.status != "ok"] == ["missing"]


GOOD = replace(
    CARD,
    power_limit_default_w=700.0,
    compute_mode="default",
    mig=False,
    mps=False,
    persistence=True,
    ecc=True,
    application_mhz=1980,
)


def setup_codes(root: Path, *cards: Gpu) -> dict[str, str]:
    """The codes of what is not ok, and the commands that repair it."""
    found = machine.gpu(gpu_probe(cards, None), None, root)
    return {each.code: ", ".join(each.mend) for each in found if each.status != "ok"}


def test_a_gpu_that_is_set_up_for_measurements_is_ok(tmp_path: Path) -> None:
    assert setup_codes(tmp_path, GOOD) == {}
    subjects = [each.subject for each in machine.gpu(gpu_probe((GOOD,), None), None, tmp_path)]
    assert subjects[1:] == ["compute mode", "MIG", "MPS", "persistence mode", "clocks", "power limit", "ECC"]


@pytest.mark.parametrize(
    ("setup", "code", "command"),
    [
        ({"compute_mode": "exclusive process"}, "gpu-exclusive-process", "-c DEFAULT"),
        ({"compute_mode": "prohibited"}, "gpu-mode-prohibited", "-c DEFAULT"),
        ({"mig": True}, "gpu-divided", ""),
        ({"mps": True}, "gpu-mps", "nvidia-cuda-mps-control"),
        ({"persistence": False}, "gpu-not-persistent", "-pm 1"),
        ({"power_limit_w": 450.0}, "gpu-power-limit-low", "-pl 700"),
    ],
)
def test_what_disturbs_measurements_is_mended(
    tmp_path: Path, setup: dict[str, object], code: str, command: str
) -> None:
    found = setup_codes(tmp_path, replace(GOOD, **setup))  # type: ignore[arg-type]
    assert list(found) == [code]
    assert found[code].endswith(command)


def test_a_service_without_clients_is_found_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    (tmp_path / "tmp/nvidia-mps").mkdir(parents=True)
    (tmp_path / "tmp/nvidia-mps/control").touch()
    assert list(setup_codes(tmp_path, GOOD)) == ["gpu-mps"]


def test_of_several_gpus_the_finding_names_one(tmp_path: Path) -> None:
    low = replace(GOOD, uuid="GPU-7", persistence=False)
    command = setup_codes(tmp_path, GOOD, low)["gpu-not-persistent"]
    assert "-i GPU-7" in command
    subjects = {each.subject for each in machine.gpu(gpu_probe((GOOD, low), None), None, tmp_path)}
    assert {"GPU 0 ECC", "GPU 1 ECC"} <= subjects


def test_who_else_uses_a_gpu_is_named(tmp_path: Path) -> None:
    probe = replace(gpu_probe((GOOD, GOOD), None), users=((), ("python3 (7)", "process 8")))
    finding = only([each for each in machine.gpu(probe, None, tmp_path) if each.code == "gpu-in-use"])
    assert (finding.subject.split()[1], finding.status) == ("1", "warning")
    assert all(name in finding.what for name in ("python3 (7)", "process 8"))


def test_the_probe_asks_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.doctor import gpu_probe as module

    installed(monkeypatch, Card(processes={os.getpid(): 1, 1 << 30: 1}), Card())
    assert module._users() == ((f"process {1 << 30}",), ())


def test_what_the_driver_does_not_tell_is_no_finding(tmp_path: Path) -> None:
    unknown = replace(CARD, sm_mhz_max=None, power_limit_w=None)
    assert len(machine.gpu(gpu_probe((unknown,), None), None, tmp_path)) == 1


def test_a_driver_s_library_that_ended_its_process_is_broken(tmp_path: Path) -> None:
    finding = only(machine.gpu(gpu_probe((), "unasked", "unasked"), "was ended by SIGSEGV", tmp_path))
    assert (finding.status, finding.code) == ("broken", "gpu-libraries-crashed")
    assert "SIGSEGV" in finding.what


# Folders


def test_folders_are_reported_with_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "cache"
    monkeypatch.setenv("REXPORT_CACHE", str(place))
    assert {finding.status for finding in machine.folders()} == {"ok"}
    assert not place.exists()
    place.mkdir(mode=0o700)
    (place / "weights.pth").write_bytes(bytes(3 << 20))
    assert machine.folders()[0].what.startswith(f"{place}, 3.0 MiB")
    assert [entry.name for entry in place.iterdir()] == ["weights.pth"]


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "file" / "cache"))
    for finding in machine.folders():
        assert (finding.status, finding.code) == ("warning", "folder-not-writable")
        assert "Not a directory" in finding.what
        assert finding.mend == ('export REXPORT_CACHE="$HOME/rexport-cache"',)


def test_a_folder_of_engines_open_to_others_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path))
    weights, engines = machine.folders()
    assert weights.status == "ok"
    assert (engines.status, engines.mend) == ("broken", (f"chmod 700 {tmp_path}",))
