"""Why an artifact is not faster, and where it differs from fp32."""
