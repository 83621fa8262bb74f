"""One file per thing that computes: the local weights, BM25, the providers, and the fake for tests."""
