"""Files and checks for other systems: Triton, containers, clusters, browsers, and what a server serves."""
