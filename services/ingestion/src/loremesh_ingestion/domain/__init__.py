"""What ingestion knows without asking anybody: text, blocks, chunks. No I/O, no await, no protobuf."""
