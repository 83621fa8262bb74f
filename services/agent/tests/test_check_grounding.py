"""CheckGrounding over gRPC, of passages and of kept answers."""

import pytest
from grpc import StatusCode, aio
from loremesh.agent.v1 import grounding_pb2 as pb
from loremesh_kit.channel import reason_of
from loremesh_kit.testing import caller

from .conftest import LIGHTHOUSE, SOUP
from .replicas import QUESTION, Mesh, Replica

pytestmark = pytest.mark.steelthread


async def check(replica: Replica, **fields: object) -> pb.CheckGroundingResponse:
    return await replica.grounding.CheckGrounding(pb.CheckGroundingRequest(**fields))


async def test_a_text_is_checked_against_passages(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        text = "👋 Hi! It is 77 metres high [2]. It is painted red."
        checked = await check(replica, text=text, question=QUESTION, passages=[SOUP, LIGHTHOUSE])
        high, red = checked.claims
        assert (text[high.start_char : high.end_char], high.supported) == ("It is 77 metres high [2].", True)
        assert (high.spans[0].passage, high.spans[0].cited, list(high.wrong_citations)) == (2, True, [])
        span = LIGHTHOUSE[high.spans[0].start_char : high.spans[0].end_char]
        assert span == "The lighthouse of Genoa is 77 metres high."
        assert (red.supported, checked.support) == (False, 0.5)
        assert (await check(replica, text="Hello!", passages=[SOUP])).support == 1


async def test_a_kept_answer_is_checked_against_its_sources_unless_they_are_gone(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        message_id = events[-1].completed.message_id
        assert (await check(replica, message_id=message_id, question=QUESTION)).support == 1
        other = await check(replica, message_id=message_id, text="It was built in 1129.")
        assert [claim.supported for claim in other.claims] == [False]
        mesh.documents.deleted.add("document-lighthouse")
        assert (await check(replica, message_id=message_id, question=QUESTION)).support == 0
        with caller(tenant="other"), pytest.raises(aio.AioRpcError) as refused:
            await check(replica, message_id=message_id)
        assert (reason_of(refused.value), refused.value.code()) == ("MESSAGE_NOT_FOUND", StatusCode.NOT_FOUND)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "PASSAGES_REQUIRED"),
        ({"text": "It is red."}, "PASSAGES_REQUIRED"),
        ({"passages": [SOUP]}, "PASSAGES_REQUIRED"),
        ({"text": "It is red.", "passages": [SOUP], "message_id": "m"}, "PASSAGES_REQUIRED"),
        ({"message_id": "none"}, "MESSAGE_NOT_FOUND"),
        ({"text": "x" * 32_001, "passages": [SOUP]}, "INVALID_FIELD"),
        ({"text": "It is red.", "passages": [""]}, "INVALID_FIELD"),
        ({"text": "It is red.", "passages": ["x"] * 101}, "INVALID_FIELD"),
        ({"text": "It is red.", "passages": ["x" * 20_000] * 20 + ["x"]}, "INVALID_FIELD"),
    ],
)
async def test_what_cannot_be_checked_has_its_reason(mesh: Mesh, fields: dict[str, object], reason: str) -> None:
    async with mesh.replica("server") as replica:
        with pytest.raises(aio.AioRpcError) as refused:
            await check(replica, **fields)
        assert reason_of(refused.value) == reason
