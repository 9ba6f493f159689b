"""The border between the parent and a measured process: a job goes in, messages and an outcome come back."""
