"""An artifact behind the model server of KServe: python kserve_model.py resnet20.onnx --http_port 8080.

The server listens at all addresses of the machine. Needs an environment with kserve and rexport[cpu].
"""

import argparse
import asyncio
from pathlib import Path

import kserve

import runtimes

DATATYPES = {"float32": "FP32", "float16": "FP16", "uint8": "UINT8", "int64": "INT64"}


class ArtifactModel(kserve.Model):
    """A model of KServe whose network is an artifact."""

    def __init__(self, name, path):
        super().__init__(name)
        self.runtime = runtimes.open(path)
        self.ready = True

    def get_input_types(self):
        """Return the inputs, for the metadata of the model."""
        return [describe(spec) for spec in self.runtime.inputs]

    def get_output_types(self):
        """Return the outputs."""
        return [describe(spec) for spec in self.runtime.outputs]

    async def predict(self, payload, *_, **__):
        """Run the network in a thread, so that the server answers others meanwhile."""
        feeds = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        try:
            arrays = await asyncio.to_thread(self.runtime.infer, feeds)
        except runtimes.InputError as error:
            raise kserve.errors.InvalidInput(str(error)) from error
        outputs = []
        for name, array in arrays.items():
            output = kserve.InferOutput(name, list(array.shape), DATATYPES[str(array.dtype)])
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return kserve.InferResponse(
            payload.id or "",
            self.name,
            outputs,
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


def describe(spec):
    """Return a tensor as the protocol describes it, with -1 for a size that may vary."""
    shape = [size if isinstance(size, int) else -1 for size in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser], conflict_handler="resolve")
    parser.add_argument("artifact")
    path = parser.parse_args().artifact
    kserve.ModelServer().start([ArtifactModel(Path(path).stem, path)])
