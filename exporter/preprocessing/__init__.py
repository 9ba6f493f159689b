"""The preprocessing of an export: options, files of other libraries, descriptions and alternatives."""
