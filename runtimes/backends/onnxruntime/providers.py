"""What ONNX Runtime's providers for NVIDIA's GPUs are told: each field is an option of the provider's own name.

None of them is a precision: that lies in the graph. Told of none, the TensorRT provider builds strongly typed networks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from runtimes.artifacts.manifest import Profile
from runtimes.tensors.spec import TensorSpec


@dataclass(frozen=True)
class CpuProvider:
    """The processor, which is told by the session's own settings."""

    name: ClassVar[str] = "CPUExecutionProvider"

    def encode(self) -> dict[str, str]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class CudaProvider:
    """The kernels of ONNX Runtime, cuDNN and cuBLAS.

    Attributes:
        device_id: the GPU's number.
        user_compute_stream: handle of the stream that it queues its work on; else it makes one.
        use_tf32: whether float32 may be computed in TensorFloat-32. The library's own default is that it may.
        prefer_nhwc: whether it turns convolutions to channels last, as tensor cores want them.
        enable_cuda_graph: whether a run is recorded and replayed; its tensors must then stay where they are.
        cudnn_conv_algo_search: how a convolution's algorithm is found, for each new shape: all are tried and timed,
            cuDNN's guess, or always the same.
        cudnn_conv_use_max_workspace: whether an algorithm may take as much memory as it wants.
        gpu_mem_limit: bytes, or ``None`` for all that there are.
        arena_extend_strategy: by how much its memory grows.
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
        """As ONNX Runtime takes it: what is ``None`` is left out."""
        return _encode_options({field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class TensorrtProvider:
    """TensorRT, which ONNX Runtime hands whole graphs and whose engines it keeps.

    Attributes:
        device_id, user_compute_stream: as the CUDA provider's.
        trt_engine_cache_enable, trt_engine_cache_path, trt_engine_cache_prefix: whether engines are kept, the folder,
            and what their names begin with. The library trusts what lies there.
        trt_timing_cache_enable, trt_timing_cache_path: the same for the times of single kernels.
        trt_profile_min_shapes, trt_profile_opt_shapes, trt_profile_max_shapes: of the inputs, as ``profile_shapes``
            gives them; else it builds again whenever a shape does not fit.
        trt_builder_optimization_level: 0 to 5.
        trt_max_workspace_size: bytes, or ``None`` for the library's own.
        trt_cuda_graph_enable: whether a run is recorded. There is one record alone, and whatever is bound later, it
            replays the addresses that it was made with.
    """

    name: ClassVar[str] = "TensorrtExecutionProvider"
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
        """As ONNX Runtime takes it: what is ``None`` is left out."""
        return _encode_options({field.name: getattr(self, field.name) for field in fields(self)})


Provider: TypeAlias = CpuProvider | CudaProvider | TensorrtProvider


def _encode_options(options: dict[str, bool | int | str | Path | None]) -> dict[str, str]:
    """A truth is ``True`` or ``False``: the CUDA provider takes digits as well, the TensorRT provider does not."""
    return {name: str(value) for name, value in options.items() if value is not None}


def profile_shapes(inputs: Iterable[TensorSpec], batch: int) -> str:
    """The shapes of the inputs at that batch, as the TensorRT provider takes them: ``input:8x3x224x224``."""
    return ",".join(
        f"{spec.name}:{'x'.join(str(batch if isinstance(size, str) else size) for size in spec.shape)}"
        for spec in inputs
    )


def add_profile(provider: TensorrtProvider, inputs: tuple[TensorSpec, ...], profile: Profile) -> TensorrtProvider:
    """The provider with that profile; the same one where no dimension of the inputs may vary."""
    if all(isinstance(size, int) for spec in inputs for size in spec.shape):
        return provider
    return replace(
        provider,
        trt_profile_min_shapes=profile_shapes(inputs, profile.least),
        trt_profile_opt_shapes=profile_shapes(inputs, profile.best),
        trt_profile_max_shapes=profile_shapes(inputs, profile.most),
    )
