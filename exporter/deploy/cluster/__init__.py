"""Files that run an artifact in containers and clusters: a Dockerfile, Compose, KServe and KubeRay.

Each kind is a file. Its function takes a deployment and returns the text to write. Nothing is applied to a cluster.
"""
