"""Use cases: the order of calls, transactions and idempotency."""
