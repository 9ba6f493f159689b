"""What the double of TensorRT runs: networks that are described in a plan, on the double's device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtimes import codec
from runtimes.artifacts.manifest import Profile
from runtimes.backends.fake import Script, answers
from runtimes.protocol import TensorSpec
from tests.runtimes.backends.tensorrt.cudadouble import Recorder


@dataclass(frozen=True)
class Network:
    """What an engine of the double's computes. ``information`` is what the engine inspector says, ``layers`` what a
    profiler hears of, ``stripped`` whether it must be refitted before it runs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    scratch_bytes: int = 4096
    information: str = '{"Layers": []}'
    layers: tuple[str, ...] = ()
    stripped: bool = False
    refittable: bool = False

    def scratch_for(self, images: int | None) -> int:
        """What intermediate results of so many images take, in proportion; ``scratch_bytes`` for the largest batch."""
        most = max(profile.most for profile in self.profiles)
        return -(-self.scratch_bytes * min(images or most, most) // most)


NETWORK = Network(
    inputs=(TensorSpec("input", "float32", ("batch", 3, 8, 8)),),
    outputs=(TensorSpec("logits", "float32", ("batch", 10)),),
    profiles=(Profile(1, 4, 8),),
)
"""As ``tests.samples.SCRIPT``."""


def plan(network: Network, magic: bytes = b"ftrt") -> bytes:
    """The engine file that the double deserialises to the network. TensorRT-RTX's magic is ``vtrt``."""
    return magic + codec.dumps(network).encode()


def compute(recorder: Recorder, network: Network, addresses: dict[str, int], images: int) -> None:
    """Runs the network on what lies at the addresses."""
    memory = recorder.cuda.memory
    arrays = {
        spec.name: memory.read(addresses[spec.name], spec.dtype, (images, *_fixed(spec))) for spec in network.inputs
    }
    answer = recorder.compute or (lambda given: answers(Script(1, network.inputs, network.outputs), given))
    found = answer(arrays)
    for spec in network.outputs:
        memory.write(addresses[spec.name], np.ascontiguousarray(found[spec.name], spec.dtype))


def use_scratch(recorder: Recorder, memory: tuple[int, int], stream: int) -> None:
    """Marks the activations' memory as the stream's: no two streams may have the same, since they run at once."""
    address, size = memory
    if not size or not recorder.cuda.memory.holds(address, 8, "device"):
        return
    mark = np.array([stream], np.int64)
    before = int(recorder.cuda.memory.read(address, "int64", (1,))[0])
    if before not in (stream, _GARBAGE):
        recorder.fault("activations-shared-by-streams")
    recorder.cuda.memory.write(address, mark)


_GARBAGE = int(np.frombuffer(b"\xdd" * 8, np.int64)[0])


def _fixed(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.shape[1:] if isinstance(size, int))
