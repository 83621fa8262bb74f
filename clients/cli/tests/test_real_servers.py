"""The servers from wheels which every package's tests use."""

import http.client
from contextlib import closing
from urllib.parse import urlsplit

import psycopg
import pytest
from loremesh_cli.mesh.probes import greets_with, http_ok
from loremesh_cli.mesh.seaweedfs import S3Access

pytestmark = pytest.mark.conformance


def test_postgres_keeps_rows_and_makes_uuidv7(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create temporary table rows (id uuid default uuidv7())")
        connection.execute("insert into rows default values")
        assert connection.execute("select count(*) from rows").fetchone() == (1,)


def test_nats_has_jetstream_and_wants_a_password(nats_url: str) -> None:
    port = urlsplit(nats_url).port
    assert port is not None
    assert greets_with(port, words=b'"jetstream":true')()
    assert greets_with(port, words=b'"auth_required":true')()


def test_s3_refuses_a_caller_without_keys(s3: S3Access) -> None:
    with closing(http.client.HTTPConnection(urlsplit(s3.endpoint_url).netloc, timeout=5)) as connection:
        connection.request("GET", f"/{s3.bucket}/.ready")
        assert connection.getresponse().status == http.client.FORBIDDEN


def test_local_model_is_healthy(local_model_url: str) -> None:
    port = urlsplit(local_model_url).port
    assert port is not None
    assert http_ok(port, "/health")()
