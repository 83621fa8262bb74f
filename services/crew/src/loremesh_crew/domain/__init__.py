"""Pure decisions: no I/O, no await, no wire format."""
