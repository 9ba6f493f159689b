"""The claims of the paper: each experiment ends in findings."""
