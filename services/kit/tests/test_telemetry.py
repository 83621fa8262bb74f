"""Logs, redaction and traces."""

import json
import logging
import uuid

import pytest
import structlog
from google.protobuf import any_pb2
from google.rpc import status_pb2
from loremesh.agent.v1.chat_pb2 import ChatRequest
from loremesh.ingestion.v1.document_pb2 import UploadDocumentRequest
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.telemetry import logs, redaction, traces
from loremesh_kit.testing import caller
from pydantic import SecretStr

pytestmark = pytest.mark.unit


class Settings(ServiceSettings):
    openai_api_key: SecretStr = SecretStr("")


@pytest.fixture
def log_lines(capsys):
    """Configure logging as a process does, and read back what it wrote."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(**settings: object):
        logs.configure(service="agent", settings=Settings(**settings))

        def lines():
            return capsys.readouterr().out.splitlines()

        return lines

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_says_when_who_and_in_which_trace(log_lines):
    tracing = traces.configure(service="agent", endpoint="")
    lines = log_lines()
    with caller(tenant="acme", request_id="r-1"), tracing.get_tracer("t").start_as_current_span("s") as span:
        structlog.get_logger("x").info("something happened", count=3)

    line = json.loads(lines()[0])
    assert line["event"] == "something happened"
    assert (line["service"], line["level"], line["count"]) == ("agent", "info", 3)
    assert (line["tenant"], line["request_id"]) == ("acme", "r-1")
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert line["time"].endswith("Z")


def test_lines_of_libraries_look_the_same(log_lines):
    lines = log_lines()
    logging.getLogger("some.library").warning("slow %s", "thing")

    line = json.loads(lines()[0])
    assert (line["event"], line["level"], line["service"]) == ("slow thing", "warning", "agent")


def test_chatter_below_the_level_is_dropped(log_lines):
    lines = log_lines(log_level="warning")
    structlog.get_logger("x").info("chatter")
    logging.getLogger("psycopg.pool").info("chatter")

    assert lines() == []


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_of_the_settings_leaves_wherever_it_comes_from(log_lines, log_format):
    lines = log_lines(
        log_format=log_format,
        openai_api_key="sk-canary-1",
        database_url="postgresql://agent:canary%402@db/x",
        nats_url="nats://u:canary-3@h:1",
    )
    log = structlog.get_logger("x")
    log.info("calling with sk-canary-1", url="postgresql://agent:canary%402@db/x")
    log.info("sent", headers={"authorization": "Bearer whatever-canary"}, api_key="canary-4", password="canary-5")
    log.warning("elsewhere", target="https://someone:canary-6@example.com/x")
    try:
        _fail(argument=True, message="cannot log in with canary@2 or canary-3")
    except RuntimeError:
        log.exception("failed")

    text = "\n".join(lines())
    assert "canary" not in text
    assert "failed" in text


def test_tracebacks_show_no_local_variables(log_lines):
    lines = log_lines()
    hidden = uuid.uuid4().hex
    try:
        _fail(hidden)
    except RuntimeError:
        structlog.get_logger("x").exception("failed")

    (line,) = lines()
    assert "RuntimeError: no" in line
    assert hidden not in line


def _fail(argument, message="no"):
    if argument:
        raise RuntimeError(message)


def test_messages_are_logged_without_their_redacted_fields(log_lines):
    lines = log_lines()
    structlog.get_logger("x").info("rpc", request=ChatRequest(message="canary", conversation_id="c-1"))

    (line,) = lines()
    assert "canary" not in line
    assert "c-1" in line


def test_redaction_reaches_into_messages_and_leaves_the_original():
    request = UploadDocumentRequest(title="t")
    request.file.data = b"canary"

    assert "canary" not in redaction.describe(request)
    assert "title" in redaction.describe(request)
    assert request.file.data == b"canary"


def test_what_an_any_holds_is_unknown_and_left_out():
    packed = any_pb2.Any()
    packed.Pack(ChatRequest(message="canary"))

    assert "canary" not in redaction.describe(status_pb2.Status(message="m", details=[packed]))


def test_a_huge_message_is_a_short_line():
    assert len(redaction.describe(ChatRequest(conversation_id="x" * 100_000))) <= 2000


def test_without_an_endpoint_traces_are_made_and_passed_on_and_none_are_sent():
    tracing = traces.configure(service="agent", endpoint="")
    with tracing.get_tracer("t").start_as_current_span("s"):
        header = traces.current_traceparent()

    assert header.startswith("00-")
    assert int(header[-2:], 16) & 1 == 0, "not sampled"
    assert traces.current_traceparent() == ""
