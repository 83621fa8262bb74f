"""What makes a process a Loremesh service: server, identity, errors, events, jobs, Postgres, telemetry."""
