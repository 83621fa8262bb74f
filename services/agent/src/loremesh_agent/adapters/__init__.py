"""Everything outside, one module for each thing."""
