"""What PyTorch costs beside its operators, because it is the reference of every ratio: ``pytorch-calls``.

On the processor, with operators so small that Python is most of the time: as on a GPU, where the kernels of a small
batch end before the next is launched.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from runtimes.backends.pytorch.launch_settings import apply_launch_settings
from runtimes.backends.pytorch.program import bind_weights
from scripts.figures.setting import Figure, FigureSettings, time_interleaved

LAYERS = 53
"""The convolutions of a ResNet-50."""

LONGEST_SETTING_S = 100e-6
"""The bound for settings and restoring them; an eager run of a ResNet-50 takes Python some milliseconds."""


class _Block(nn.Module):
    """A convolution, its normalisation, an addition and a ReLU, of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:  # (n, 1, h, w) -> (n, 1, h, w)
        return self.relu(self.norm(self.conv(x)) + x)  # type: ignore[no-any-return]


def pytorch_calls(settings: FigureSettings) -> Iterator[Figure]:
    """The bound operators against the module that a user calls and the one that ``torch.export`` gives; the settings
    of a launch."""
    network, x = nn.Sequential(*(_Block() for _ in range(LAYERS))).eval(), torch.randn(1, 1, 2, 2)
    program = torch.export.export(network, (x,))
    bound, exported = bind_weights(program), program.module()
    with torch.inference_mode():
        rounds = max(50, settings.rounds)
        ours, users, theirs = time_interleaved((lambda: bound(x), lambda: network(x), lambda: exported(x)), rounds)
    for name, others in (("nn.Module", users), ("torch.export's module", theirs)):
        share = statistics.median(ours) / statistics.median(others)
        medians = f"{statistics.median(ours) * 1e6:.0f} us against {statistics.median(others) * 1e6:.0f} us"
        yield Figure(
            f"operators of {LAYERS} blocks without {name}", f"{share:.2f} x, {medians}", "<= 1.05 x", share <= 1.05
        )
    for tf32 in (True, False, None):
        (samples,) = time_interleaved((lambda: _apply(tf32),), rounds)  # noqa: B023  # called in the same round
        median = statistics.median(samples)
        precision = {True: "tf32", False: "fp32", None: "half precision"}[tf32]
        yield Figure(
            f"settings of a launch in {precision}",
            f"{median * 1e6:.1f} us",
            f"<= {LONGEST_SETTING_S * 1e6:.0f} us",
            median <= LONGEST_SETTING_S,
        )


def _apply(tf32: bool | None) -> None:
    with apply_launch_settings(tf32, search=True):
        pass
