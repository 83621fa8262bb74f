"""Reads documents; all of it runs in child processes, since the files come from strangers."""
