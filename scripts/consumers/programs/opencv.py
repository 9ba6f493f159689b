"""Logits by the dnn module of OpenCV."""

from pathlib import Path

import cv2
from numpy.typing import ArrayLike

from scripts.consumers.programs.exchange import Input, answer


def run(model: Path, images: Input) -> ArrayLike:
    network = cv2.dnn.readNetFromONNX(str(model))
    network.setInput(images)
    logits: ArrayLike = network.forward()
    return logits


answer(run, cv2.__version__)
