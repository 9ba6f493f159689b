"""The contract on disk: model file, manifest and test vectors."""
