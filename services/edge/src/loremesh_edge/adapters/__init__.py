"""What the edge service reaches outside itself."""
