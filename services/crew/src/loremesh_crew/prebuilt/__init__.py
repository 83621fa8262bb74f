"""The crews and flows that come with the service: YAML documents, each one `crew` or `flow` as the contracts have it."""
