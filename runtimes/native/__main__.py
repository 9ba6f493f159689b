"""Prints the folder of the headers: ``g++ -I"$(python -m runtimes.native)" ...``."""

import sys

from runtimes.native import include_folder

sys.stdout.write(f"{include_folder()}\n")
