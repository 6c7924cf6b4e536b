"""Log-probabilities of the branches of token trees: packing, tree attention, the head, the cache."""
