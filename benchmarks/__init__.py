"""``rbench``: what models cost on a machine, in latency and memory, and how accurate they are."""
