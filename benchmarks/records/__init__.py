"""Data that crosses between the rooms of the benchmark: requests, samples, results, and their files."""
