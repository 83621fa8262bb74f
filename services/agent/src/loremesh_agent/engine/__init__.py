"""Use cases: what happens in which order, and what is kept."""
