"""One module per format: bytes in, a ParsedDocument out; each imports its library when it is first needed."""
