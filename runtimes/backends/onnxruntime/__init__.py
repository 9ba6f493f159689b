"""ONNX Runtime beneath its backends: the session that it opens, its providers' options, its runs on a device."""
