"""Rows to test with."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.environment import Environment
from benchmarks.gpu import Gpu, GpuState
from benchmarks.results import Row

MACHINE = Environment(
    cpu="Fast Processor 9",
    architecture="x86_64",
    processors=4,
    usable_processors=2,
    instruction_sets=("avx2", "avx512f"),
    memory_bytes=8 << 30,
    system="Some System 12",
    kernel="Linux 6.1",
    python="CPython 3.11.7",
    packages={"numpy": "2.4.6"},
    variables={},
    governor="unknown",
    frequency_mhz=None,
    load_average=(0.5, 0.25, 0.12),
)

EMPTY = Row(
    status="ok",
    reason=None,
    run="0123456789ab",
    time="2026-01-02T03:04:05+00:00",
    artifact="resnet20.onnx",
    sha256="ab" * 32,
    variant="resnet20",
    weights="bundled",
    trained=True,
    runtime="onnxruntime",
    device="cpu",
    precision="fp32",
    batch=1,
    threads=2,
    data="fashion-mnist",
    seed=0,
    environment=MACHINE,
    subject="resnet20.onnx",
)

REFERENCE = replace(
    EMPTY,
    runtime="pytorch",
    runtime_version="2.13.0",
    provider="eager",
    arithmetic="float32",
    p50_s=0.0025,
    p50_interval_s=(0.00245, 0.00256),
    p90_s=0.0027,
    p99_s=0.0031,
    compute_p50_s=0.0024,
    images_per_s=398.2,
    ratio=1.0,
    ratio_interval=(1.0, 1.0),
    load_s=2.25,
    first_s=0.031,
    peak_bytes=312_400_000,
    top1=0.9361,
    top1_interval=(0.9311, 0.9407),
    top5=0.9981,
    images=10_000,
    agreement=1.0,
    drop=0.0,
    drop_interval=(-0.0002, 0.0002),
    samples_s=(0.0025, 0.0025),
)

FASTER = replace(
    REFERENCE,
    runtime="onnxruntime",
    runtime_version="1.32.0",
    provider="CPUExecutionProvider",
    arithmetic="int8 (53 of 54), float32 (1 of 54)",
    precision="int8",
    p50_s=0.00041,
    p50_interval_s=(0.000405, 0.000416),
    ratio=6.0976,
    ratio_interval=(5.95, 6.21),
    agreement=0.9999,
    top1=0.9349,
    top1_interval=(0.9299, 0.9396),
    drop=0.0012,
    drop_interval=(-0.0005, 0.0029),
)

SKIPPED = replace(EMPTY, status="skipped", reason="openvino is not installed", runtime="openvino")

H200 = Gpu("NVIDIA H200", "GPU-0", "580.159.03", "13.0", "9.0", 150_754_820_096, 1980, 700.0)

IDLE = GpuState("NVIDIA H200", "GPU-0", 345, 3201, 76.5, 31, ("idle",), 1000.0, 600 << 20)
BUSY = GpuState("NVIDIA H200", "GPU-0", 1755, 3201, 695.25, 55, ("power cap", "sync boost"), 1500.0, 1600 << 20)

ON_A_GPU = replace(
    FASTER,
    device="cuda",
    provider="CUDAExecutionProvider",
    precision="fp16",
    arithmetic="float16",
    environment=replace(MACHINE, gpus=(replace(H200, name="Another GPU", uuid="GPU-1"), H200)),
    cuda_graphs=True,
    device_p50_s=0.000321,
    device_p50_interval_s=(0.00032, 0.000322),
    device_samples_s=(0.00032, 0.000322),
    device_warmup_s=(0.0004,),
    gpu_before=IDLE,
    gpu_after=BUSY,
    device_peak_bytes=1_048_576_000,
    energy_per_image_j=0.0123,
)
