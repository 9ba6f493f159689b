"""The experiments of He et al. 2015, rerun."""
