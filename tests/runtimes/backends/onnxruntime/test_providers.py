"""What the providers are told: under the library's own names, and only what is meant."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from runtimes import TensorSpec
from runtimes.artifacts.manifest import Profile
from runtimes.backends.onnxruntime.providers import (
    CpuProvider,
    CudaProvider,
    TensorrtProvider,
    add_profile,
    profile_shapes,
)

CUDA_OPTIONS = """
    arena_extend_strategy cudnn_conv1d_pad_to_nc1d cudnn_conv_algo_search cudnn_conv_use_max_workspace device_id
    do_copy_in_default_stream enable_cuda_graph enable_cudnn external_data_loader_reading_threads fuse_conv_bias
    gpu_external_alloc gpu_external_empty_cache gpu_external_free gpu_mem_limit has_user_compute_stream prefer_nhwc
    sdpa_kernel tunable_op_enable tunable_op_max_tuning_duration_ms tunable_op_tuning_enable use_ep_level_unified_stream
    use_tf32 user_compute_stream
"""
"""What ``InferenceSession.get_provider_options`` of onnxruntime-gpu 1.31.1 gave, over an empty CUDA library."""

TENSORRT_OPTIONS = """
    device_id has_user_compute_stream trt_auxiliary_streams trt_bf16_enable trt_build_heuristics_enable
    trt_builder_optimization_level trt_context_memory_sharing_enable trt_cuda_graph_enable trt_detailed_build_log
    trt_dla_core trt_dla_enable trt_dump_ep_context_model trt_dump_subgraphs trt_engine_cache_enable
    trt_engine_cache_path trt_engine_cache_prefix trt_engine_decryption_enable trt_engine_decryption_lib_path
    trt_engine_hw_compatible trt_ep_context_embed_mode trt_ep_context_file_path trt_external_data_bytestream
    trt_external_data_bytestream_size trt_extra_plugin_lib_paths trt_force_sequential_engine_build
    trt_force_timing_cache trt_fp16_enable trt_int8_calibration_table_name trt_int8_enable
    trt_int8_use_native_calibration_table trt_layer_norm_fp32_fallback trt_load_user_initializer
    trt_max_partition_iterations trt_max_workspace_size trt_min_subgraph_size trt_onnx_bytestream
    trt_onnx_bytestream_size trt_onnx_model_folder_path trt_op_types_to_exclude trt_preview_features
    trt_profile_max_shapes trt_profile_min_shapes trt_profile_opt_shapes trt_sparsity_enable trt_tactic_sources
    trt_timing_cache_enable trt_timing_cache_path trt_weight_stripped_engine_enable user_compute_stream
"""
"""The strings in libonnxruntime_providers_tensorrt.so of the same."""


@pytest.mark.parametrize(
    ("provider", "known"), [(CudaProvider(), CUDA_OPTIONS), (TensorrtProvider(), TENSORRT_OPTIONS)]
)
def test_every_field_is_an_option_of_the_library(provider: CudaProvider | TensorrtProvider, known: str) -> None:
    assert {field.name for field in fields(provider)} <= set(known.split())
    assert set(provider.encode()) <= {field.name for field in fields(provider)}
    assert not any("16_enable" in name or "int8_enable" in name for name in provider.encode()), "precision is typed"


def test_float32_is_float32_unless_told_otherwise() -> None:
    assert CudaProvider().encode()["use_tf32"] == "False"  # the library's own default is true
    assert CudaProvider(use_tf32=True).encode()["use_tf32"] == "True"


def test_values_as_the_library_parses_them() -> None:
    told = CudaProvider(user_compute_stream=4096, prefer_nhwc=True, gpu_mem_limit=1 << 30).encode()
    assert told == {
        "device_id": "0",
        "user_compute_stream": "4096",
        "use_tf32": "False",
        "prefer_nhwc": "True",
        "enable_cuda_graph": "False",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "True",
        "gpu_mem_limit": "1073741824",
        "arena_extend_strategy": "kNextPowerOfTwo",
    }
    assert CpuProvider().encode() == {}
    kept = TensorrtProvider(trt_engine_cache_enable=True, trt_engine_cache_path=Path("a folder")).encode()
    assert kept == {
        "device_id": "0",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": "a folder",
        "trt_timing_cache_enable": "False",
        "trt_builder_optimization_level": "3",
        "trt_cuda_graph_enable": "False",
    }


IMAGES = TensorSpec("input", "float32", ("batch", 3, 32, 32))


def test_a_profile_is_shapes_by_name() -> None:
    other = TensorSpec("other", "float32", ("batch", 4))
    assert profile_shapes((IMAGES, other), 8) == "input:8x3x32x32,other:8x4"
    told = add_profile(TensorrtProvider(), (IMAGES,), Profile(1, 8, 64))
    shapes = (told.trt_profile_min_shapes, told.trt_profile_opt_shapes, told.trt_profile_max_shapes)
    assert shapes == ("input:1x3x32x32", "input:8x3x32x32", "input:64x3x32x32")


def test_what_cannot_vary_needs_no_profile() -> None:
    provider = TensorrtProvider()
    assert add_profile(provider, (TensorSpec("input", "float32", (4, 3, 32, 32)),), Profile(1, 8, 64)) is provider
    assert add_profile(provider, (), Profile(1, 8, 64)) is provider
