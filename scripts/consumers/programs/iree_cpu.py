"""Logits by IREE, which compiles the graph for the CPU: import, compilation and run as with its command-line tools."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import iree.runtime
from numpy.typing import ArrayLike

from scripts.consumers.programs.exchange import Input, answer

TOOLS = Path(sys.executable).parent


def run(model: Path, images: Input) -> ArrayLike:
    with TemporaryDirectory() as folder:
        graph, program = f"{folder}/model.mlir", f"{folder}/model.vmfb"
        convert("iree-import-onnx", str(model), "--opset-version", "20", "-o", graph)
        target = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")
        convert("iree-compile", graph, *target, "--iree-llvmcpu-target-cpu=host", "-o", program)
        module = iree.runtime.load_vm_flatbuffer_file(program, driver="local-sync")
        logits: ArrayLike = module.main_graph(images).to_host()
        return logits


def convert(tool: str, *arguments: str) -> None:
    """Run a tool of IREE, and end with its first error if it fails."""
    done = subprocess.run([str(TOOLS / tool), *arguments], capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error:" in line or "Error" in line]
        sys.exit(f"{tool}: {errors[0] if errors else done.stderr[-300:]}")


answer(run, version("iree-base-compiler"))
