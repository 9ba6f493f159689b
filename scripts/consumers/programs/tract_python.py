"""Logits by tract, a runtime in Rust."""

from pathlib import Path

import tract
from numpy.typing import ArrayLike

from scripts.consumers.programs.exchange import Input, answer


def run(model: Path, images: Input) -> ArrayLike:
    network = tract.onnx().load(str(model))
    network.set_input_fact(0, f"{','.join(map(str, images.shape))},{'u8' if images.dtype == 'uint8' else 'f32'}")
    logits: ArrayLike = network.into_model().into_runnable().run([images])[0].to_numpy()
    return logits


answer(run, tract.version())
