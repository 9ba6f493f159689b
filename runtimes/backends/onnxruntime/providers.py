"""The options of ONNX Runtime's providers. The fields have the names of the options.

No option sets a precision, because the graph determines it. Without such an option, the TensorRT provider builds
strongly typed networks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

from runtimes.artifacts.manifest import Profile
from runtimes.frozen_dataclass import dataclass
from runtimes.tensors.spec import TensorSpec


@dataclass(frozen=True)
class CpuProvider:
    """The provider for the CPU, which has no options of its own."""

    name: ClassVar[str] = "CPUExecutionProvider"

    def encode(self) -> dict[str, str]:
        """Return the options for ONNX Runtime: none."""
        return {}


@dataclass(frozen=True)
class CudaProvider:
    """The provider for CUDA: the kernels of ONNX Runtime, cuDNN and cuBLAS.

    Attributes:
        name: ONNX Runtime's name of the provider.
        device_id: The number of the GPU.
        user_compute_stream: The handle of the stream for the work. Without one, the provider creates a stream.
        use_tf32: Whether float32 may be computed in TensorFloat-32. ONNX Runtime's own default is yes.
        prefer_nhwc: Whether convolutions are converted to channels last, which tensor cores need.
        enable_cuda_graph: Whether runs are recorded and replayed. The tensors must then keep their addresses.
        cudnn_conv_algo_search: The choice of a convolution's algorithm for each new shape: measuring all, cuDNN's
            heuristic, or a fixed algorithm.
        cudnn_conv_use_max_workspace: Whether an algorithm may use any amount of memory.
        gpu_mem_limit: The memory limit in bytes, or ``None`` for no limit.
        arena_extend_strategy: The growth of the provider's memory.
    """

    name: ClassVar[str] = "CUDAExecutionProvider"
    device_id: int = 0
    user_compute_stream: int | None = None
    use_tf32: bool = False
    prefer_nhwc: bool = False
    enable_cuda_graph: bool = False
    cudnn_conv_algo_search: Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"] = "EXHAUSTIVE"
    cudnn_conv_use_max_workspace: bool = True
    gpu_mem_limit: int | None = None
    arena_extend_strategy: Literal["kNextPowerOfTwo", "kSameAsRequested"] = "kNextPowerOfTwo"

    def encode(self) -> dict[str, str]:
        """Return the options for ONNX Runtime, without those that are ``None``."""
        return _encode_options({field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class TensorrtProvider:
    """The provider for TensorRT, which builds engines of whole graphs.

    Attributes:
        name: ONNX Runtime's name of the provider.
        prefix: The beginning of the names of its own options.
        device_id: The number of the GPU.
        user_compute_stream: The handle of the stream for the work. Without one, the provider creates a stream.
        trt_engine_cache_enable: Whether engines are cached.
        trt_engine_cache_path: The folder of the cached engines. The library trusts its content.
        trt_engine_cache_prefix: The prefix of the names of cached engines.
        trt_timing_cache_enable: Whether the times of kernels are cached.
        trt_timing_cache_path: The folder of the cached times.
        trt_profile_min_shapes: The smallest shapes of the inputs, as from ``profile_shapes``. Without profiles, the
            provider builds a new engine whenever a shape does not fit.
        trt_profile_opt_shapes: The shapes to optimise for.
        trt_profile_max_shapes: The largest shapes.
        trt_builder_optimization_level: The optimisation level of the builder, 0 to 5.
        trt_max_workspace_size: The memory limit of the builder in bytes, or ``None`` for the library's default.
        trt_cuda_graph_enable: Whether a run is recorded. The provider keeps only one recording and replays it with the
            recorded addresses, even if other tensors are bound later.
    """

    name: ClassVar[str] = "TensorrtExecutionProvider"
    prefix: ClassVar[str] = "trt"
    device_id: int = 0
    user_compute_stream: int | None = None
    trt_engine_cache_enable: bool = False
    trt_engine_cache_path: Path | None = None
    trt_engine_cache_prefix: str | None = None
    trt_timing_cache_enable: bool = False
    trt_timing_cache_path: Path | None = None
    trt_profile_min_shapes: str | None = None
    trt_profile_opt_shapes: str | None = None
    trt_profile_max_shapes: str | None = None
    trt_builder_optimization_level: int = 3
    trt_max_workspace_size: int | None = None
    trt_cuda_graph_enable: bool = False

    def encode(self) -> dict[str, str]:
        """Return the options for ONNX Runtime, without those that are ``None``."""
        return _encode_options({field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class RtxProvider:
    """The provider for TensorRT-RTX, a plugin.

    Attributes:
        name: ONNX Runtime's name of the provider.
        prefix: The beginning of the names of its own options.
        plugin: The module of the plugin.
        package: The package of the plugin.
        nv_profile_min_shapes: The smallest shapes of the inputs, as from ``profile_shapes``.
        nv_profile_opt_shapes: The shapes to optimise for.
        nv_profile_max_shapes: The largest shapes.
        nv_runtime_cache_path: The folder for kernels that are compiled for the GPU.
    """

    name: ClassVar[str] = "NvTensorRTRTXExecutionProvider"
    prefix: ClassVar[str] = "nv"
    plugin: ClassVar[str] = "onnxruntime_ep_nv_tensorrt_rtx"
    package: ClassVar[str] = "onnxruntime-ep-nv-tensorrt-rtx"
    nv_profile_min_shapes: str | None = None
    nv_profile_opt_shapes: str | None = None
    nv_profile_max_shapes: str | None = None
    nv_runtime_cache_path: Path | None = None

    def encode(self) -> dict[str, str]:
        """Return the options for ONNX Runtime, without those that are ``None``."""
        return _encode_options({field.name: getattr(self, field.name) for field in fields(self)})


Provider: TypeAlias = CpuProvider | CudaProvider | TensorrtProvider | RtxProvider


def _encode_options(options: dict[str, bool | int | str | Path | None]) -> dict[str, str]:
    """Return the options as text, without those that are ``None``.

    Booleans become ``True`` or ``False``: the TensorRT provider does not accept digits.
    """
    return {name: str(value) for name, value in options.items() if value is not None}


def profile_shapes(inputs: Iterable[TensorSpec], batch: int) -> str:
    """Return the shapes of ``inputs`` at this ``batch`` in the TensorRT provider's form: ``input:8x3x224x224``."""
    return ",".join(
        f"{spec.name}:{'x'.join(str(batch if isinstance(size, str) else size) for size in spec.shape)}"
        for spec in inputs
    )


_Profiled = TypeVar("_Profiled", TensorrtProvider, RtxProvider)


def add_profile(provider: _Profiled, inputs: tuple[TensorSpec, ...], profile: Profile) -> _Profiled:
    """Return the provider with an optimisation profile, or unchanged if no dimension of the inputs may vary.

    Args:
        provider: The provider.
        inputs: The specifications of the inputs.
        profile: The batch sizes of the profile.
    """
    if all(isinstance(size, int) for spec in inputs for size in spec.shape):
        return provider
    sizes = {"min": profile.least, "opt": profile.best, "max": profile.most}
    shapes: dict[str, Any]
    shapes = {f"{provider.prefix}_profile_{name}_shapes": profile_shapes(inputs, size) for name, size in sizes.items()}
    return replace(provider, **shapes)
