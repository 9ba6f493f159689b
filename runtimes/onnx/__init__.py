"""An ONNX file, read without the onnx library."""
