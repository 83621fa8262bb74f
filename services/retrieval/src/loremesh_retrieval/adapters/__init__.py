"""One module per thing outside, and its twin in memory."""
