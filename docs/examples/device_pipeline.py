"""Label images while the next batch is prepared: ``python device_pipeline.py MODEL.onnx [DEVICE] < LIST``.

Standard input names one image file a line. On a GPU the logits stay there and PyTorch ranks them there; on the CPU the
same code runs on the host.
"""

import itertools
import sys
from concurrent.futures import Future

from torch import Tensor
from torch.utils.dlpack import from_dlpack

import runtimes
from runtimes.images.preprocessing import prepare_images

BATCH = 32


def finish(started: tuple[list[str], Future]) -> None:
    """Print the most probable class of each image of a batch, after waiting for its run."""
    paths, future = started
    logits: Tensor = from_dlpack(future.result()["logits"])  # on the device of the model
    probabilities, classes = logits.softmax(dim=1).max(dim=1)
    for path, index, probability in zip(paths, classes.tolist(), probabilities.tolist(), strict=True):
        print(f"{path}\t{index}\t{probability:.3f}")


def main(model: str, device: str = "cpu") -> None:
    with runtimes.open(model, device=device) as runtime:
        preprocessing = runtime.artifact.manifest.preprocessing
        started = None
        lines = (line.strip() for line in sys.stdin)
        while paths := list(itertools.islice(filter(None, lines), BATCH)):
            images = prepare_images(paths, preprocessing)  # while the run before is under way
            if started is not None:
                finish(started)
            started = paths, runtime.infer_async({"input": images}, device_outputs=True)
        if started is not None:
            finish(started)


if __name__ == "__main__":
    main(*sys.argv[1:])
