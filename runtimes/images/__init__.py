"""Preparation of images for a network: decoding, resizing, cropping, normalising and prefetching."""
