"""What other systems need of an artifact: Triton, containers, clusters, browsers, and the check of what is served."""
