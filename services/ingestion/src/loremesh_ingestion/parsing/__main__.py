"""Starts a parsing process: `python -m loremesh_ingestion.parsing MEMORY_BYTES`."""

import sys

from loremesh_ingestion.parsing.child import main

if __name__ == "__main__":
    main(memory_bytes=int(sys.argv[1]))
