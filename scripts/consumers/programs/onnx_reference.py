"""Logits by the reference evaluator of the onnx package."""

from pathlib import Path

import onnx
from numpy.typing import ArrayLike
from onnx.reference import ReferenceEvaluator

from scripts.consumers.programs.exchange import Input, answer


def run(model: Path, images: Input) -> ArrayLike:
    logits: ArrayLike = ReferenceEvaluator(str(model)).run(None, {"input": images})[0]
    return logits


answer(run, onnx.__version__)
