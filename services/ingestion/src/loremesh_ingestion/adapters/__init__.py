"""What ingestion talks to, one module per outside thing."""
