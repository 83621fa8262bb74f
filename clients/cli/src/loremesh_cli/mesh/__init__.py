"""A whole mesh on one machine: the real servers from wheels, the services and the front door, under one supervisor."""
