"""Decoding and resizing of images on an NVIDIA GPU, with nvImageCodec and PyTorch."""
