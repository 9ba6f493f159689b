"""Explanations of artifacts: why they are not faster, and where they differ from fp32."""
