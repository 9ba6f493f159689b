"""The boundary to a measured process: a job goes in, messages and an outcome come back."""
