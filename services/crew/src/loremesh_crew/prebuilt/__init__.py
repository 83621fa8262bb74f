"""The crews and flows that come with the service: YAML documents, each a `crew` or a `flow` of the contracts."""
