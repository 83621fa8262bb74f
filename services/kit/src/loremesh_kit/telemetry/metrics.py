"""Prometheus metrics, with the names go-grpc-prometheus gave the world."""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

_RPC = ("grpc_type", "grpc_service", "grpc_method")

RPC_STARTED = Counter("grpc_server_started_total", "Calls started.", _RPC)
RPC_HANDLED = Counter("grpc_server_handled_total", "Calls finished, by status code.", (*_RPC, "grpc_code"))
RPC_SECONDS = Histogram("grpc_server_handling_seconds", "How long calls took.", _RPC)
RPC_RECEIVED = Counter("grpc_server_msg_received_total", "Messages received.", _RPC)
RPC_SENT = Counter("grpc_server_msg_sent_total", "Messages sent.", _RPC)

JOBS_FINISHED = Counter("jobs_finished_total", "Attempts finished, by outcome.", ("kind", "outcome"))
JOB_SECONDS = Histogram("jobs_attempt_seconds", "How long attempts took.", ("kind",))
JOBS_IN_HAND = Gauge("jobs_in_hand", "Jobs claimed and not finished in this process.")
OUTBOX_SENT = Counter("outbox_sent_total", "Messages handed to JetStream.")
JOBS_SWEPT = Counter("jobs_swept_total", "Jobs announced again, by why.", ("why",))


def serve(port: int, *, address: str) -> None:
    """Serve /metrics at the address where the service itself listens; port 0 means not at all."""
    if port:
        start_http_server(port, addr=address.strip("[]"))
