"""The arithmetic of a kernel by its name. NVIDIA's libraries name their kernels after the types that they multiply.

Types alone do not tell TensorFloat-32: its tensors are float32. The kernels of cuDNN, cuBLAS, CUTLASS and TensorRT say
so in their names, for example ``sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_...``.
"""

from __future__ import annotations

import re

_PRODUCT = re.compile(r"gemm|gemv|fprop|convolve|conv2d|conv_|winograd|scudnn|hcudnn|nvjet|tensorop", re.IGNORECASE)
"""A part of the names of convolutions and matrix products."""

_PREPARATION = re.compile(
    r"split_?k_?reduce|offsets|im2col|winograd_?forward(data|filter|output)|tohwc|tonhwc", re.IGNORECASE
)
"""Kernels that prepare or finish a product."""

_ARITHMETIC: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("float8", r"e4m3|e5m2|fp8|f8f8|nvjet_(sm\d+_)?qq"),
        ("int8", r"i8i8|imma|i8816|i16832|int8|s8s8|_s8_|_u8_"),
        ("tfloat32", r"tf32"),
        ("bfloat16", r"bf16|bfloat16|nvjet_(sm\d+_)?t[a-z]t"),
        ("float16", r"f16|fp16|half|hgemm|hcudnn|hmma|[hs]884|h1688|16816|nvjet_(sm\d+_)?h[a-z]h"),
        ("tfloat32", r"tensorop_s1688(gemm|fprop)"),
        ("float32", r"sgemm|scudnn|ffma|simt|f32f32|winograd|<float"),
    )
)
"""The arithmetic and the names of its kernels. The first match counts."""


def arithmetic_of(kernel: str) -> str | None:
    """Return the arithmetic of a convolution or matrix product by NumPy's names.

    The result is ``unknown`` if the name does not tell, and ``None`` for a kernel of another kind.
    """
    if not _PRODUCT.search(kernel) or _PREPARATION.search(kernel):
        return None
    return next((name for name, pattern in _ARITHMETIC if pattern.search(kernel)), "unknown")
