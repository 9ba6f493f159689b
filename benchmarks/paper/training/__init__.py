"""Training of a residual network by the recipe of He et al. 2015."""
