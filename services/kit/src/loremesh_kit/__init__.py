"""What makes a process a Loremesh service: server, identity, errors, events, jobs, Postgres, telemetry."""

import os

# gRPC would have every forked child run code of its own before it becomes another program, and while calls are under
# way one child in twenty dies of that. It is read when gRPC is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
