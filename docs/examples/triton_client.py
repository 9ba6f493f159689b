"""Asks a Triton server for the labels of image files.

    python triton_client.py 127.0.0.1:8001 resnet20 photo.jpg

It needs tritonclient[grpc], and nothing of rexport. The repository was written with --backend python: Triton decodes
and prepares the images, and reads the labels from labels.txt if the repository has that file. Otherwise classes are
numbered.
"""

import sys
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

TOP = 3

address, model, *paths = sys.argv[1:]
with InferenceServerClient(address) as client:
    for path in paths:
        image = InferInput("image", [1, 1], "BYTES")
        image.set_data_from_numpy(np.array([[Path(path).read_bytes()]], dtype=object))
        logits = InferRequestedOutput("logits", class_count=TOP)
        answer = client.infer(model, [image], outputs=[logits], client_timeout=10)
        print(path)
        for entry in answer.as_numpy("logits")[0]:
            logit, index, *label = entry.decode().split(":", 2)
            print(f"  {label[0] if label else f'class {index}'}: {float(logit):.3f}")
