"""Deployment: repositories for a Triton Inference Server, and checks of what a server serves."""
