"""Ingestion: vector stores, documents, their text and chunks, and the jobs that index them."""
