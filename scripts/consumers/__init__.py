"""Which runtimes open the ONNX files of rexport as they are, and how far their logits are from ONNX Runtime's.

    python -m scripts.consumers [-o FOLDER]

``models`` exports four files, ``consumer`` asks one runtime in a process of its own, ``rows`` lists the runtimes, and
``table`` writes the results. ``make peers`` installs the runtimes.
"""
