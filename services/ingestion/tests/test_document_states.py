from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_ingestion.domain.document import (
    Document,
    DocumentState,
    Standing,
    may_enter,
    outdated_before,
    passage,
    standing,
)

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DOCUMENT = Document(
    key="d",
    id="d",
    vector_store_id="default",
    generation=1,
    live=True,
    title="t",
    title_given=True,
    filename="",
    media_type="text/plain",
    size_bytes=1,
    sha256="0" * 64,
    attributes={},
    chunking_strategy=None,
    state=DocumentState.UPLOADED,
    failure=None,
    version=0,
    latest_version=1,
    batches_done=0,
    batches_total=0,
    chunk_count=0,
    token_count=0,
    page_count=0,
    text_chars=0,
    changes=None,
    metadata_revision=1,
    revision=1,
    create_time=NOW,
    update_time=NOW,
)
STATES = st.sampled_from(DocumentState)
PIPELINE = ["UPLOADED", "PARSING", "CHUNKING", "EMBEDDING", "INDEXING", "READY"]


@given(st.lists(STATES, max_size=30))
def test_whatever_is_asked_for_a_document_goes_forward_or_begins_anew(wishes):
    state = DocumentState.UPLOADED
    for wish in wishes:
        if not may_enter(state, wish):
            continue
        forward = state in PIPELINE and wish in PIPELINE and PIPELINE.index(wish) > PIPELINE.index(state)
        assert forward or wish in (DocumentState.UPLOADED, DocumentState.FAILED, DocumentState.DELETING, "DELETED")
        assert state is not DocumentState.DELETED
        state = wish


@given(STATES)
def test_nothing_comes_back_from_a_deletion(wish):
    assert may_enter(DocumentState.DELETING, wish) == (wish is DocumentState.DELETED)
    assert not may_enter(DocumentState.DELETED, wish)


@given(STATES)
def test_what_failed_can_be_indexed_again_and_what_is_ready_cannot_fail(wish):
    assert may_enter(DocumentState.FAILED, DocumentState.UPLOADED)
    assert not may_enter(DocumentState.READY, DocumentState.FAILED)
    assert may_enter(wish, DocumentState.FAILED) == (wish in PIPELINE[:-1])


@given(STATES, STATES)
def test_a_passage_is_made_of_steps_that_are_allowed(origin, target):
    at = origin
    for step in passage(origin, target):
        assert may_enter(at, step)
        at = step
    assert at is target or passage(origin, target) == ()


def test_a_small_document_passes_through_every_stage():
    assert list(passage(DocumentState.UPLOADED, DocumentState.INDEXING)) == PIPELINE[1:5]


def test_an_attempt_that_starts_over_does_not_take_a_document_back():
    assert passage(DocumentState.EMBEDDING, DocumentState.PARSING) == ()


@pytest.mark.parametrize(
    ("changes", "version", "expected"),
    [
        ({}, 1, Standing.CURRENT),
        ({"latest_version": 2}, 1, Standing.SUPERSEDED),
        ({"latest_version": 2, "version": 1, "state": DocumentState.EMBEDDING}, 2, Standing.CURRENT),
        ({"version": 1, "state": DocumentState.READY}, 1, Standing.DONE),
        ({"version": 2, "latest_version": 2, "state": DocumentState.READY}, 1, Standing.DONE),
        ({"state": DocumentState.FAILED}, 1, Standing.FAILED),
        ({"state": DocumentState.DELETING}, 1, Standing.GONE),
    ],
)
def test_a_deletion_or_a_newer_version_wins_over_work_under_way(changes, version, expected):
    assert standing(replace(DOCUMENT, **changes), version) is expected


def test_work_for_a_document_that_is_not_there_is_void():
    assert standing(None, 1) is Standing.GONE


@given(live=st.integers(0, 5), dropped=st.integers(1, 6))
def test_dropping_a_version_never_takes_the_live_one_out_of_the_index(live, dropped):
    before = outdated_before(replace(DOCUMENT, version=live, latest_version=6), dropped)
    assert before <= live or live == 0
    if live == 0:
        assert before == dropped + 1
