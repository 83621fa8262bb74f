import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh.agent.v1 import conversation_pb2
from loremesh.ingestion.v1 import document_pb2
from loremesh_kit.errors import PageTokenInvalid
from loremesh_kit.pages import Position, decode_token, encode_token

pytestmark = pytest.mark.unit

texts = st.text(st.characters(exclude_categories=["Cs"]))
positions = st.builds(Position, sort_key=texts, id=texts)


@given(positions, texts)
def test_a_token_leads_back_to_its_position(position, store):
    query = document_pb2.ListDocumentsRequest(vector_store_id=store)

    assert decode_token(encode_token(position, query=query), query=query) == position


@given(positions, st.integers(0, 100), texts)
def test_page_size_and_token_are_no_part_of_the_query(position, size, token):
    first = document_pb2.ListDocumentsRequest(vector_store_id="s")
    next_page = document_pb2.ListDocumentsRequest(vector_store_id="s", page_size=size, page_token=token)

    assert decode_token(encode_token(position, query=first), query=next_page) == position


@given(positions, texts, texts)
def test_a_token_of_another_query_is_refused(position, mine, other):
    token = encode_token(position, query=document_pb2.ListDocumentsRequest(vector_store_id=mine))
    if mine == other:
        return

    with pytest.raises(PageTokenInvalid):
        decode_token(token, query=document_pb2.ListDocumentsRequest(vector_store_id=other))


def test_a_token_of_another_method_is_refused():
    token = encode_token(Position("a", "b"), query=document_pb2.ListDocumentsRequest())

    with pytest.raises(PageTokenInvalid):
        decode_token(token, query=conversation_pb2.ListConversationsRequest())


@given(st.text(min_size=1))
def test_a_made_up_token_is_refused(token):
    with pytest.raises(PageTokenInvalid) as raised:
        decode_token(token, query=document_pb2.ListDocumentsRequest())

    assert raised.value.violations[0].field == "page_token"


@given(st.data(), positions)
def test_a_token_changed_anywhere_leads_nowhere_else(data, position):
    query = document_pb2.ListDocumentsRequest(vector_store_id="s")
    token = encode_token(position, query=query)
    at = data.draw(st.integers(0, len(token) - 1))

    with pytest.raises(PageTokenInvalid):
        decode_token(token[:at], query=query) or _refuse_empty(token[:at])


def _refuse_empty(token):
    assert token == ""
    raise PageTokenInvalid


@pytest.mark.parametrize("body", [b"[]", b"{}", b"1", b'[1,"x","y"]', b'[2,"x","y","z"]', b"[" * 10000])
def test_well_encoded_nonsense_is_refused(body):
    token = base64.urlsafe_b64encode(body).decode().rstrip("=")

    with pytest.raises(PageTokenInvalid):
        decode_token(token, query=document_pb2.ListDocumentsRequest())


def test_no_token_is_the_first_page():
    assert decode_token("", query=document_pb2.ListDocumentsRequest()) is None
