"""Decisions without I/O: prompts, citations, relevance, grounding."""
