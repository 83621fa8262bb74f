"""What is computed, without I/O: terms, BM25 weights, pooling, late interaction, and the order of work."""
