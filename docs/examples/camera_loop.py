"""Label the frames of a camera: ``python camera_loop.py resnet20.onnx 0``, or an animated image in place of 0.

A line is printed when the label changes. Probabilities are averaged over the last frames, so that one blurred frame
changes nothing. A camera needs ``pip install opencv-python-headless``.
"""

import sys
from collections import deque
from collections.abc import Iterator

import numpy as np

from runtimes import Classifier

WINDOW = 5
"""The number of frames whose probabilities are averaged."""


def frames(source: str) -> Iterator[np.ndarray]:
    """Yield RGB frames, uint8 (h, w, 3): of a camera by its number, or of an animated GIF, WEBP or TIFF."""
    if not source.isdecimal():
        from PIL import Image, ImageSequence

        with Image.open(source) as animation:
            yield from (np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation))
        return
    import cv2

    camera = cv2.VideoCapture(int(source))
    camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, and no queue of old ones
    while (grabbed := camera.read())[0]:
        yield grabbed[1][:, :, ::-1]  # OpenCV's frames are BGR


def main(model: str, source: str) -> None:
    """Print each change of the label with its frame and probability."""
    recent: deque[np.ndarray] = deque(maxlen=WINDOW)
    shown = None
    with Classifier.open(model) as classifier:
        names = classifier.names or ()
        for number, frame in enumerate(frames(source)):
            labels = classifier.predict(frame, top=sys.maxsize)[0].labels  # of all classes
            recent.append(np.array([label.probability for label in sorted(labels, key=lambda label: label.index)]))
            mean = np.mean(recent, axis=0)
            best = int(mean.argmax())
            if best != shown:
                shown = best
                name = names[best] if names else f"class {best}"
                print(f"frame {number}: {name} {mean[best]:.0%}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
