"""Turns text into vectors, dense and sparse, and scores how well passages answer a question."""
