"""Label images while the next batch is prepared: ``python device_pipeline.py MODEL.onnx [DEVICE] < LIST``.

Standard input names one image file a line. On a GPU the logits stay there and PyTorch ranks them there; on the CPU the
same code runs on the host. The network needs an output for each class: one output has no most probable class.
"""

import itertools
import sys
from concurrent.futures import Future

from torch import Tensor
from torch.utils.dlpack import from_dlpack

import runtimes
from runtimes.images.preprocessing import prepare_images

BATCH = 32

STEPS = {"softmax": lambda logits: logits.softmax(dim=1), "sigmoid": Tensor.sigmoid, "none": lambda logits: logits}
"""The steps from the logits to probabilities, by their names in the manifest."""


def finish(started: tuple[list[str], Future], activation: str) -> None:
    """Print the most probable class of each image of a batch, after waiting for its run."""
    paths, future = started
    logits: Tensor = from_dlpack(future.result()["logits"])  # on the device of the model
    probabilities, classes = STEPS[activation](logits).max(dim=1)
    for path, index, probability in zip(paths, classes.tolist(), probabilities.tolist(), strict=True):
        print(f"{path}\t{index}\t{probability:.3f}")


def main(model: str, device: str = "cpu") -> None:
    with runtimes.open(model, device=device) as runtime:
        manifest = runtime.artifact.manifest
        preprocessing, activation = manifest.preprocessing, manifest.activation or "softmax"
        if any(spec.name == "logits" and spec.shape[-1] == 1 for spec in manifest.outputs):
            sys.exit(f"{model} has one output; device_pipeline.py labels images with networks of two or more outputs")
        started = None
        lines = (line.strip() for line in sys.stdin)
        while paths := list(itertools.islice(filter(None, lines), BATCH)):
            images = prepare_images(paths, preprocessing)  # while the run before is under way
            if started is not None:
                finish(started, activation)
            started = paths, runtime.infer_async({"input": images}, device_outputs=True)
        if started is not None:
            finish(started, activation)


if __name__ == "__main__":
    main(*sys.argv[1:])
