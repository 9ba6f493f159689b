"""Whether a provider of ONNX Runtime is as fast as the library that it calls, where both were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.analysis.figures import Figures
from benchmarks.format import milliseconds
from runtimes.errors import Reason

LIBRARIES = {"onnxruntime-tensorrt": "tensorrt", "onnxruntime-rtx": "tensorrt-rtx"}
"""The backend that calls a library directly, by the backend that calls it through ONNX Runtime."""

SLOWER = 1.3
"""A row of the provider whose median run takes more than this many times as long does not show the library's speed."""


def list_slower_providers(results: Sequence[Figures]) -> Iterator[tuple[Figures, Reason]]:
    """Yield the rows of a provider that take more than ``SLOWER`` times as long as those of its library.

    Rows are compared if they have the same file, precision, batch, devices and use of CUDA graphs.

    Args:
        results: The results of one subject on one machine.

    Yields:
        The row and a warning.
    """
    direct = {_configuration(figures, figures.result.identity.backend): figures for figures in results}
    for figures in results:
        library = LIBRARIES.get(figures.result.identity.backend)
        other = direct.get(_configuration(figures, library or ""))
        ours, theirs = figures.compute_p50, None if other is None else other.compute_p50
        if ours is None or theirs is None or ours.value <= SLOWER * theirs.value:
            continue
        yield (
            figures,
            Reason(
                "provider-slower-than-library",
                f"a run takes {ours.value / theirs.value:.1f} times as long as with the backend {library} "
                f"({milliseconds(ours.value)} ms against {milliseconds(theirs.value)} ms): this row does not show the "
                "speed of the library",
            ),
        )


def _configuration(figures: Figures, backend: str) -> tuple[object, ...]:
    identity, asked = figures.result.identity, figures.result.asked
    return backend, identity.file, identity.precision, identity.batch, asked.device, asked.at_once, asked.cuda_graphs
