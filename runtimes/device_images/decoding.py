"""Decoding of JPEG files on an NVIDIA GPU with nvImageCodec."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any

from runtimes.errors import BackendUnavailableError, quote

_MODULE = "nvidia.nvimgcodec"
_PIP = "pip install 'nvidia-nvimgcodec-cu13[nvjpeg]', or for CUDA 12 'nvidia-nvimgcodec-cu12[all]'"

_OPTIONS = ":fancy_upsampling=1"
"""Smooth interpolation of the colours, as libjpeg-turbo and therefore Pillow do it. nvJPEG's default repeats them."""


class JpegDecoder:
    """nvImageCodec on one GPU. Many threads may use it; their calls run one after the other.

    Args:
        device: The number of the CUDA device.

    Attributes:
        version: The version of nvImageCodec.

    Raises:
        BackendUnavailableError: nvImageCodec is not installed or finds no GPU.
    """

    def __init__(self, device: int) -> None:
        library = _import_library()
        self.version = str(library.__version__)
        self._library = library
        self._lock = threading.Lock()
        try:
            self._decoder: Any = library.Decoder(device_id=device, options=_OPTIONS)
            self._parameters = library.DecodeParams(
                apply_exif_orientation=False,
                color_spec=library.ColorSpec.SRGB,
                sample_format=library.SampleFormat.I_RGB,
            )
        except Exception as error:  # of the library, which has no errors of its own
            raise BackendUnavailableError(
                f"nvImageCodec cannot be used on GPU {device}: {quote(error)}",
                code="nvimgcodec-unusable",
                hint="leave out decoder=, or run nvidia-smi for details",
            ) from error

    def decode(self, contents: Sequence[bytes], stream: int) -> list[object | None]:
        """Queue the decoding of JPEG files on a stream.

        Args:
            contents: The contents of the files.
            stream: The handle of the CUDA stream.

        Returns:
            For each file an object that supports DLPack: RGB, uint8 (h, w, 3), in device memory, not turned upright.
            ``None`` for a file that nvImageCodec does not decode.
        """
        with self._lock:
            sources = [self._parse(content) for content in contents]
            readable = [source for source in sources if source is not None]
            decoded = iter(self._decoder.decode(readable, params=self._parameters, cuda_stream=stream))
            return [None if source is None else next(decoded) for source in sources]

    def _parse(self, content: bytes) -> object | None:
        try:
            source: object = self._library.CodeStream(content)
        except RuntimeError:  # a header that it cannot read
            return None
        return source


def _import_library() -> Any:
    try:
        return importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            "decoding on a GPU needs nvImageCodec, which is not installed", code="nvimgcodec-missing", hint=_PIP
        ) from error
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"nvImageCodec is installed but cannot be imported: {quote(error)}",
            code="nvimgcodec-not-importable",
            hint=_PIP,
        ) from error
