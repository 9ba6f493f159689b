"""Logits by MNN, after its converter.

The converter is called as a library: its command ``mnnconvert`` installs packages and reports each use to its makers.
"""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import MNN.expr as expr
import MNN.nn as nn
import numpy as np
from numpy.typing import ArrayLike

from scripts.consumers.programs.exchange import Input, answer

CONVERT = "import sys, MNN, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"


def run(model: Path, images: Input) -> ArrayLike:
    with TemporaryDirectory() as folder:
        target = f"{folder}/model.mnn"
        options = ["-f", "ONNX", "--modelFile", str(model), "--MNNModel", target, "--bizCode", "rexport"]
        done = subprocess.run([sys.executable, "-c", CONVERT, *options], capture_output=True, text=True)
        if not Path(target).exists():
            sys.exit((done.stdout + done.stderr)[-1000:])
        network = nn.load_module_from_file(target, ["input"], ["logits"])
        kind = expr.uint8 if images.dtype == "uint8" else expr.float
        given = expr.placeholder(
            list(images.shape), expr.NCHW, kind
        )  # NCHW is the order of ONNX, whatever the axes mean
        given.write(np.ascontiguousarray(images))
        answers = network.forward([given])
        if not answers:
            errors = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "Error" in line]
            sys.exit(f"no output; the converter says: {errors[0] if errors else 'nothing'}")
        return np.array(expr.convert(answers[0], expr.NCHW).read(), np.float32)


answer(run, version("MNN"))
