"""Logits by ncnn, after the converter pnnx, with weights in float32. ncnn takes one image at a time."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import ncnn
import numpy as np
from numpy.typing import ArrayLike

from scripts.consumers.programs.exchange import Input, answer


def run(model: Path, images: Input) -> ArrayLike:
    with TemporaryDirectory() as folder:
        copyfile(model, f"{folder}/model.onnx")
        kind = "u8" if images.dtype == "uint8" else "f32"
        shape = f"inputshape=[{','.join(map(str, (1, *images.shape[1:])))}]{kind}"
        tool = str(Path(sys.executable).with_name("pnnx"))
        done = subprocess.run([tool, "model.onnx", shape, "fp16=0"], cwd=folder, capture_output=True, text=True)
        if not Path(f"{folder}/model.ncnn.bin").exists():
            sys.exit((done.stdout + done.stderr)[-1000:])
        with ncnn.Net() as network:
            if network.load_param(f"{folder}/model.ncnn.param"):
                sys.exit(1)  # ncnn has printed which operator it does not know
            network.load_model(f"{folder}/model.ncnn.bin")
            return np.stack([logits_of(network, image) for image in images])


def logits_of(network: ncnn.Net, image: Input) -> ArrayLike:
    with network.create_extractor() as extractor:
        extractor.input("in0", ncnn.Mat(np.ascontiguousarray(image)).clone())
        code, logits = extractor.extract("out0")
        if code:
            sys.exit(f"ncnn: extract returned {code}")
        return np.array(logits)


answer(run, version("ncnn"))
