"""The `loremesh` command: runs a mesh on one machine, puts documents in, asks questions."""
