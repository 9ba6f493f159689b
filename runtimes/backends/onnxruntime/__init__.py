"""The backends for ONNX Runtime: on the CPU, on CUDA, and with the TensorRT provider."""
