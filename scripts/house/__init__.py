"""This program measures the structure of the code base and holds it to bounds: ``python -m scripts.house``.

The figures come from reading the sources; none of the measured code is imported or run. ``--list NAME`` shows what one
figure counts, ``--json`` prints all figures for another program, and ``--check`` exits with 1 if a bound is exceeded.
"""
