"""OpenTelemetry: every process makes and passes on trace ids; spans are sent only where an endpoint is set."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT = "traceparent"
_propagator = TraceContextTextMapPropagator()
# Stands for whatever tracer is installed later; finding it for each span would take a third of the span's time.
_tracer = trace.get_tracer("loremesh_kit")


def configure(*, service: str, endpoint: str) -> TracerProvider:
    """Install the process's tracer; shut it down with `provider.shutdown()` to flush."""
    sampler = ParentBased(ALWAYS_ON if endpoint else ALWAYS_OFF)
    resource = Resource.create({"service.name": f"loremesh-{service}", "service.namespace": "loremesh"})
    provider = TracerProvider(resource=resource, sampler=sampler)
    if endpoint:
        # Imported here: the exporter costs start-up time which most processes need not pay.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


def current_traceparent() -> str:
    """The W3C header of the span under way, empty when there is none."""
    return headers_of(trace.get_current_span()).get(TRACEPARENT, "")


def headers_of(span: Span) -> dict[str, str]:
    """The headers by which another process continues `span`'s trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier


@contextmanager
def span(name: str, *, kind: SpanKind, carrier: Mapping[str, str], attributes: Mapping[str, str]) -> Iterator[Span]:
    """A span that continues the trace in `carrier`, in force for the block."""
    parent = _propagator.extract(carrier)
    with _tracer.start_as_current_span(name, context=parent, kind=kind, attributes=dict(attributes)) as current:
        yield current


def start_client_span(name: str, attributes: Mapping[str, str]) -> Span:
    """A span for a call we make, child of the one under way; the caller ends it."""
    return _tracer.start_span(name, kind=SpanKind.CLIENT, attributes=dict(attributes))
