"""The forms of a source of images: how each of them is listed, and how the content of a listed image is read."""
