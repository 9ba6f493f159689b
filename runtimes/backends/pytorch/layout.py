"""The choice of the memory layout of a program on CUDA: channels last where its run is measured to be faster."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from runtimes.backends.pytorch.launch_settings import apply_launch_settings
from runtimes.backends.pytorch.program import bind_weights, is_half_precision, set_weight_layout
from runtimes.errors import Reason
from runtimes.tensors.capture import capture_lock

if TYPE_CHECKING:
    from runtimes.backends.pytorch.session import Call
    from runtimes.tensors.spec import TensorSpec

TRIAL_BYTES = 16 << 20
"""The size of the input of a trial: so much that the device and not Python limits the speed."""

LARGEST_TRIAL = 256
"""The largest batch of a trial."""

TRIAL_WARM_UPS, TRIAL_RUNS = 2, 5
"""The number of runs before the timing, in which cuDNN searches its algorithms, and of the timed ones."""

MARGIN = 1.03
"""How many times as fast channels-last must be. Otherwise two openings might choose differently."""


@dataclass(frozen=True)
class WeightLayout:
    """The layout of a program, and the times by which it was chosen.

    Attributes:
        channels_last: Whether the program runs with channels last.
        notes: The times of both layouts, or nothing where the layout is known without.
    """

    channels_last: bool
    notes: tuple[Reason, ...] = ()


def trial_batch(spec: TensorSpec) -> int:
    """Return the batch of a trial for an input: its fixed batch size, or what the limits allow."""
    if spec.fixed_batch is not None:
        return spec.fixed_batch
    return max(1, min(LARGEST_TRIAL, TRIAL_BYTES // (4 * math.prod(_sizes(spec)))))


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    """Return the sizes of all dimensions but the batch, of which none varies in a program."""
    return tuple(size for size in spec.shape[1:] if isinstance(size, int))


def set_faster_layout(program: torch.export.ExportedProgram, spec: TensorSpec, tf32: bool) -> WeightLayout:
    """Give the program on a CUDA device the faster layout, and return it. This takes seconds for float32.

    Args:
        program: The program.
        spec: Its input.
        tf32: Whether float32 is computed in TensorFloat-32.
    """
    if is_half_precision(program):
        set_weight_layout(program, torch.channels_last)
        return WeightLayout(channels_last=True)
    shape = (trial_batch(spec), *_sizes(spec))
    device = next(program.parameters()).device
    with torch.cuda.device(device), apply_launch_settings(tf32, search=True), capture_lock():
        dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
        example = torch.zeros(shape, dtype=dtype, device=device)
        layout = choose_layout(program, example, time_on_device)
        del example
        torch.cuda.empty_cache()
    return layout


def choose_layout(
    program: torch.export.ExportedProgram, example: torch.Tensor, time_run: Callable[[Call, torch.Tensor], float]
) -> WeightLayout:
    """Measure both layouts, and give the program the faster one. If memory is lacking, half of the images are tried.

    Args:
        program: The program.
        example: The input of the trial.
        time_run: Returns the time of one run of a function on an input in seconds.
    """
    before = dict(program.state_dict)
    try:
        first_s = time_run(bind_weights(program), example)
        set_weight_layout(program, torch.channels_last)
        last_s = time_run(bind_weights(program), example)
    except torch.OutOfMemoryError:
        program.state_dict.update(before)
        if len(example) == 1:
            raise
        return choose_layout(program, example[: len(example) // 2], time_run)
    if first_s <= MARGIN * last_s:
        program.state_dict.update(before)
    note = Reason(
        "layout-measured",
        f"a batch of {len(example)} took {last_s * 1e3:.2f} ms with channels last and {first_s * 1e3:.2f} ms with "
        "channels first",
    )
    return WeightLayout(first_s > MARGIN * last_s, (note,))


def time_on_device(call: Call, tensor: torch.Tensor) -> float:
    """Return the shortest time of a run on the current CUDA device in seconds, by the clock of the device.

    Args:
        call: Runs the program on a tensor.
        tensor: The tensor, on the device.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    times = []
    with torch.inference_mode():
        for _ in range(TRIAL_WARM_UPS + TRIAL_RUNS):
            start.record()
            call(tensor)
            end.record()
            end.synchronize()
            times.append(float(start.elapsed_time(end)) / 1e3)
    return min(times[TRIAL_WARM_UPS:])
