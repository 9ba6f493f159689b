"""Kernels by their names, and what is derived from them. The names are those of NVIDIA's libraries in public traces."""

from __future__ import annotations

import pytest

from benchmarks.records.result import KernelSummary
from benchmarks.roofline.roof import count_layers
from benchmarks.worker import kernels
from benchmarks.worker.kernel_names import arithmetic_of
from benchmarks.worker.kernels import Kernel, can_record, summarise_kernels

NAMES = {
    "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x32x16_stage1": "tfloat32",
    "sm90_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize64x128x32": "tfloat32",
    "cutlass_tensorop_s1688fprop_optimized_tf32_64x64_16x10_nhwc_align4": "tfloat32",
    "cutlass_80_tensorop_s1688gemm_128x128_16x5_nn_align4": "tfloat32",
    "sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize256x64x32": "float16",
    "ampere_fp16_s16816gemm_fp16_64x64_sliced1x2_ldg8_f2f_stages_64x6_tn": "float16",
    "turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_tn": "float16",
    "volta_h884gemm_64x64_ldg8_tn": "float16",
    "nvjet_hsh_128x64_64x8_2x1_v_bz_TNT": "float16",
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64": "bfloat16",
    "nvjet_tst_256x256_64x4_2x1_v_bz_TNN": "bfloat16",
    "nvjet_sm100_tst_64x32_64x16_2x1_2cta_v_bz_TNT": "bfloat16",
    "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32": "int8",
    "void implicit_convolve_sgemm<float, float, 128, 5, 5, 3, 3, 3, 1, false, false, true>(int)": "float32",
    "ampere_sgemm_32x32_sliced1x4_tn": "float32",
    "volta_scudnn_128x64_relu_small_nn_v1": "float32",
    "void implicit_convolve_sgemm<__half, __half, 1024, 5, 5, 3, 3, 3, 1>(int)": "float16",
    "void precomputed_convolve_mystery<1024>": "unknown",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>": None,
    "void cudnn::ops::nchwToNhwcKernel<float, float, float, false, true>": None,
    "cask__5x_cudnn::computeOffsetsKernel(cask__5x_cudnn::ComputeOffsetsParams)": None,
    "void cublasLt::splitKreduce_kernel<32, 16, int, float, float>": None,
    "triton_poi_fused_add_relu_0": None,
}


@pytest.mark.parametrize(("name", "arithmetic"), NAMES.items(), ids=range(len(NAMES)))
def test_a_name_tells_its_arithmetic(name: str, arithmetic: str | None) -> None:
    assert arithmetic_of(name) == arithmetic


TF32, SIMT, ADD = "sm80_xmma_fprop_implicit_gemm_tf32f32_nhwc", "ampere_sgemm_32x32_tn", "elementwise_kernel"


def test_kernels_are_counted_and_their_time_is_not_counted_twice() -> None:
    ran = (Kernel(TF32, 0.0, 2.0), Kernel(ADD, 1.0, 1.5), Kernel(TF32, 1.5, 3.0), Kernel(SIMT, 5.0, 6.0))
    found = summarise_kernels(ran)
    assert found is not None
    assert (found.count, found.busy_s, found.names) == (4, 4.0, (TF32, SIMT))
    assert count_layers(found.arithmetic) == {"tfloat32": 2, "float32": 1}


def test_a_name_that_does_not_tell_proves_nothing() -> None:
    found = summarise_kernels([Kernel(TF32, 0.0, 1.0), Kernel("mystery_gemm", 1.0, 2.0)])
    assert found is not None
    assert found.arithmetic is None
    only = summarise_kernels([Kernel(ADD, 0.0, 1.0)])
    assert only == KernelSummary(1, 1.0, None, ())
    assert summarise_kernels([]) is None


class Time:
    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end


class Event:
    """As ``torch.autograd.profiler_util.FunctionEvent``: times in microseconds."""

    def __init__(self, name: str, device: str, start: float, end: float) -> None:
        self.name, self.time_range = name, Time(start, end)
        self.device_type = type("DeviceType", (), {"name": device})


def test_the_profilers_events_on_the_device_are_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.profiler

    recordings = [
        [Event("first run", "CUDA", 0, 1)],
        [
            Event(SIMT, "CUDA", 30, 40),
            Event("cudaLaunchKernel", "CPU", 0, 5),
            Event("Memcpy DtoH (Device -> Pinned)", "CUDA", 50, 60),
            Event(TF32, "CUDA", 10, 20),
        ],
    ]

    class Recording:
        def __init__(self, activities: list[torch.profiler.ProfilerActivity]) -> None:
            assert activities == [torch.profiler.ProfilerActivity.CUDA]
            self.found = recordings.pop(0)

        def __enter__(self) -> Recording:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def events(self) -> list[Event]:
            return self.found

    monkeypatch.setattr(torch.profiler, "profile", Recording)
    made: list[None] = []
    found = kernels.record_kernels(lambda: made.append(None))
    assert len(made) == 2
    assert [kernel.name for kernel in found] == [TF32, SIMT]
    assert [kernel.end_s - kernel.start_s for kernel in found] == pytest.approx([1e-5, 1e-5])


def test_a_pytorch_without_cuda_records_nothing() -> None:
    import torch

    if torch.version.cuda is not None:
        pytest.skip("this PyTorch has CUDA")
    assert not can_record()
