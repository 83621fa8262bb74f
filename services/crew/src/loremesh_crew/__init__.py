"""Crews and flows that finish: definitions, runs, and the pure functions that decide them."""
