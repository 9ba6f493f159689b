"""Prints the folder of the headers: ``g++ -I"$(python -m runtimes.native)" ...``."""

from runtimes.native import include_folder

print(include_folder())
