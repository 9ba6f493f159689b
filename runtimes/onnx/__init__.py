"""Reading of ONNX files without the onnx library."""
