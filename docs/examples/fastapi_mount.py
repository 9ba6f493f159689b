"""Labels below a path of your own app: ``uvicorn fastapi_mount:app``, with a model in MODEL or resnet20.onnx."""

import os

from fastapi import FastAPI

from runtimes.serving import ServedModel, ServingSettings, create_app

model = ServedModel.open(os.environ.get("MODEL", "resnet20.onnx"), threads=1)
app = FastAPI(title="A shop")
app.mount("/labels", create_app([model], ServingSettings(queue=64, max_bytes=4 << 20)))


@app.get("/")
def home() -> dict[str, str]:
    """The page of the model is at /labels/, and its routes are below: POST /labels/v1/label takes an image."""
    return {"page": "/labels/", "labels": "/labels/v1/label"}
