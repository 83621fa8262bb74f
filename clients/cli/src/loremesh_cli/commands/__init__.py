"""The subcommands, by noun."""
