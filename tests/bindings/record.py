"""Writes the surface of a release from its wheel: ``python -m tests.bindings.record LIBRARY FOLDER``.

``FOLDER`` holds the unpacked wheel::

    pip download --no-deps --dest wheels cuda-bindings==12.8.0
    unzip -d cuda-12.8.0 wheels/cuda_bindings-12.8.0-*.whl
    python -m tests.bindings.record cuda cuda-12.8.0

The wheels are those of cuda-bindings, nvidia-ml-py, onnxruntime-gpu and torch. PyTorch is read from its sources,
because the build for GPUs cannot be imported without CUDA. A compiled library has to fit the Python that records it.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bindings import imported
from tests.bindings.sources import Names, Package
from tests.bindings.surface import FOLDER, Surface, place

TORCH_MODULES = (
    "torch",
    "torch._dynamo.config",
    "torch._inductor",
    "torch._inductor.config",
    "torch.backends",
    "torch.backends.cuda",
    "torch.backends.cudnn",
    "torch.cuda",
    "torch.export",
    "torch.export.passes",
    "torch.fx",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.utils.fusion",
    "torch.onnx",
    "torch.optim",
    "torch.profiler",
    "torch.utils.dlpack",
    "torch.utils.flop_counter",
    "torch.version",
)
"""The modules of PyTorch whose names are recorded."""

TORCH_CLASSES = (
    "torch.Generator",
    "torch.Tensor",
    "torch.cuda.CUDAGraph",
    "torch.cuda.Event",
    "torch.cuda.Stream",
    "torch.export.ExportedProgram",
    "torch.fx.Graph",
    "torch.fx.GraphModule",
    "torch.fx.Interpreter",
    "torch.fx.Node",
    "torch.nn.Module",
)
"""The classes of PyTorch whose members are recorded, too; and those of objects that a module stands for."""

TORCH_PRIVATE = ("torch.__version__", "torch._int_mm")
"""The names that are recorded although they begin with an underscore."""

TORCH_OBJECTS = {"torch.backends.cudnn": "CudnnModule"}
"""Modules that are replaced by an object of a class when they are imported."""

NO_OPTIONS: tuple[str, ...] = ()


def torch(folder: Path) -> tuple[str, Names, tuple[str, ...]]:
    package = Package(folder)
    names: Names = {}
    for module in TORCH_MODULES:
        for name, calls in package.module(module).items():
            full = f"{module}.{name}"
            owner, _, member = full.rpartition(".")
            stands = TORCH_OBJECTS.get(module)
            if stands is not None and name.startswith(f"{stands}."):
                full = f"{module}.{name.partition('.')[2]}"
            elif owner != module and owner not in TORCH_CLASSES and not owner[len(module) + 1 :].islower():
                continue
            if not member.startswith("_") or full in TORCH_PRIVATE:
                names[full] = calls
    version = re.search(r"^__version__ = ['\"]([\d.]+)", (folder / "torch/version.py").read_text(), re.MULTILINE)
    assert version is not None
    return version[1], names | {"torch.__version__": []}, NO_OPTIONS


def cuda(folder: Path) -> tuple[str, Names, tuple[str, ...]]:
    sys.path.insert(0, str(folder))
    runtime = importlib.import_module("cuda.bindings.runtime")
    names = {name: calls for name, calls in imported.read(runtime).items() if not name.startswith(("anon", "cudaEgl"))}
    return importlib.import_module("cuda.bindings").__version__, names, NO_OPTIONS


def pynvml(folder: Path) -> tuple[str, Names, tuple[str, ...]]:
    source = folder / "pynvml.py"
    names = Package(folder).module("pynvml")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    structs = {node.name: list(_struct_fields(node)) for node in tree.body if isinstance(node, ast.ClassDef)}
    given = {node.name: _struct_given(node, structs) for node in tree.body if isinstance(node, ast.FunctionDef)}
    names = {name: calls for name, calls in names.items() if name.startswith(("nvml", "NVML")) and "." not in name}
    for name, struct in given.items():
        if struct is not None and name in names:
            names[name] = [f"{call} -> {struct}" for call in names[name]]
            names |= {f"{struct}.{field}": [] for field in structs[struct]}
    (about,) = folder.glob("nvidia_ml_py-*.dist-info")
    return about.name.split("-")[1].removesuffix(".dist"), names, NO_OPTIONS


def _struct_fields(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_fields_":
            pairs = statement.value.elts if isinstance(statement.value, ast.List) else []
            yield from (str(ast.literal_eval(pair.elts[0])) for pair in pairs if isinstance(pair, ast.Tuple))


def _struct_given(function: ast.FunctionDef, structs: dict[str, list[str]]) -> str | None:
    """The struct that a function makes and returns; of several versions, the first that needs no argument."""
    made: dict[str, list[str]] = {}
    returned: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made.setdefault(ast.unparse(node.targets[0]), []).append(ast.unparse(node.value.func))
        elif isinstance(node, ast.Return) and node.value is not None:
            returned.add(ast.unparse(node.value))
    kinds = [kind for name in returned for kind in made.get(name, []) if kind in structs]
    return kinds[0] if kinds else None


def onnxruntime(folder: Path) -> tuple[str, Names, tuple[str, ...]]:
    sys.path.insert(0, str(folder))
    library = importlib.import_module("onnxruntime")
    libraries = [*(folder / "onnxruntime/capi").glob("*.so"), *(folder / "onnxruntime/capi").glob("*.so.*")]
    options = sorted({text for path in libraries for text in _options(path)})
    return library.__version__, imported.read(library), tuple(options)


_OPTION = re.compile(
    rb"\0((?:trt|nv|cudnn_conv|session|optimization|ep)[_.][a-z][a-z0-9_.]*|device_id|user_compute_stream|gpu_[a-z_]+"
    rb"|arena_extend_strategy|enable_cuda_graph|prefer_nhwc|use_tf32|disable_synchronize_execution_providers)(?=\0)"
)
"""How the names of options look among the texts of a library."""


def _options(path: Path) -> set[str]:
    return {text.decode() for text in _OPTION.findall(path.read_bytes())}


READERS: dict[str, Callable[[Path], tuple[str, Names, tuple[str, ...]]]] = {
    "cuda": cuda,
    "onnxruntime": onnxruntime,
    "pynvml": pynvml,
    "torch": torch,
}


def main(library: str, folder: str) -> None:
    version, names, options = READERS[library](Path(folder))
    surface = Surface(library, version, names, options)
    FOLDER.mkdir(exist_ok=True)
    place(library, version).write_text(surface.text(), encoding="utf-8")
    print(f"{place(library, version)}: {len(names)} names, {len(options)} options")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
