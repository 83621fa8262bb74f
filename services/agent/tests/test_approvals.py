"""Approvals on a real Postgres and NATS: who decides first, who watches, and what time does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from grpc import StatusCode, aio
from loremesh.agent.v1 import approval_pb2 as pb
from loremesh_agent.adapters import postgres_approvals
from loremesh_agent.adapters.postgres_approvals import PostgresApprovals, ask, cancel_of_run, of_run
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.domain.approvals import Alarm, Decision, Kind, NewApproval, State, Verdict
from loremesh_agent.domain.tools import ExpiryPolicy
from loremesh_agent.engine.approvals import AlarmClock, Approvals
from loremesh_agent.errors import ApprovalDecided, ApprovalNotFound, ToolArgumentsInvalid
from loremesh_kit import jobs
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import DependencyUnavailable, EtagMismatch, ServiceError
from loremesh_kit.loops import background
from loremesh_kit.postgres import Database, Row, open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller
from psycopg import AsyncConnection

from .replicas import SECONDS, Mesh, Replica, until

pytestmark = pytest.mark.steelthread

MAIL = NewApproval(
    kind=Kind.TOOL_CALL,
    run_id="run",
    conversation_id="c",
    agent_id="default",
    tool_name="send_mail",
    arguments={"to": "ada", "times": 2},
    question="May it send this?",
    due_in=timedelta(hours=10),
)
APPROVE, DENY = Decision(verdict=Verdict.APPROVE), Decision(verdict=Verdict.DENY, comment="Not today.")


async def make_conversation(database: Database) -> None:
    await PostgresConversations(database=database).create("c", title="", agent_id="default", attributes={})


async def asking(database: Database, **fields: Any) -> str:
    async with database.transaction() as connection:
        return await ask(connection, replace(MAIL, **fields))


async def pass_time(database: Database, hours: float) -> None:
    """As though all had been asked so much earlier."""
    statement = """
    UPDATE approvals SET
        create_time = create_time - %(by)s, due_time = due_time - %(by)s, alarm_time = alarm_time - %(by)s
    """
    await database.fetch(statement, {"by": timedelta(hours=hours)})


async def facts(database: Database) -> list[str]:
    rows = await database.fetch("SELECT subject FROM outbox WHERE subject LIKE 'events.Approval%%' ORDER BY id")
    return [row["subject"].removeprefix("events.Approval") for row in rows]


@dataclass
class Desk:
    """Two processes' approvals in one database, and the runs they let go on."""

    databases: Sequence[Database]
    resumed: list[str] = field(default_factory=list)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.stores = [PostgresApprovals(database=each, bus=None, resume=self._resume) for each in self.databases]

    async def _resume(self, connection: AsyncConnection[Row], run_id: str) -> None:
        del connection
        if self.failure:
            raise self.failure
        self.resumed.append(run_id)

    async def ring(self) -> list[int]:
        """All alarm clocks at once."""
        async with background() as group:
            ringing = [group.create_task(AlarmClock(alarms=store).ring()) for store in self.stores]
        return [each.result() for each in ringing]


@pytest.fixture
async def desk(database_urls: DatabaseUrls) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        settings = ServiceSettings(database_url=database_urls.plain)
        databases = [await stack.enter_async_context(open_database(settings)) for _ in range(2)]
        with caller():
            await make_conversation(databases[0])
            yield Desk(databases)


async def outcomes(*attempts: Awaitable[Any]) -> list[Any]:
    """What came of each, all at once."""

    async def outcome(attempt: Awaitable[Any]) -> Any:
        try:
            return await attempt
        except ServiceError as error:
            return error

    async with asyncio.timeout(SECONDS), background() as group:
        tasks = [group.create_task(outcome(each)) for each in attempts]
    return [task.result() for task in tasks]


async def test_what_is_asked_is_kept_whole_and_only_with_its_transaction(desk: Desk) -> None:
    database, store = desk.databases[0], desk.stores[0]
    with suppress(DependencyUnavailable):
        async with database.transaction() as connection:
            await ask(connection, MAIL)
            raise DependencyUnavailable("test")
    assert await store.page(after=None, limit=9, state=State.PENDING, run_id="") == []
    approval = await store.get(await asking(database, on_expiry=ExpiryPolicy.FAIL))
    assert (approval.kind, approval.state, approval.tool_name) == (Kind.TOOL_CALL, State.PENDING, "send_mail")
    assert (approval.arguments, approval.question) == ({"to": "ada", "times": 2}, "May it send this?")
    assert (approval.run_id, approval.on_expiry) == ("run", ExpiryPolicy.FAIL)
    assert approval.due_time - approval.create_time == timedelta(hours=10)
    assert await facts(database) == ["Requested"]


async def test_another_tenant_neither_sees_nor_decides(desk: Desk) -> None:
    approval_id = await asking(desk.databases[0])
    with caller(tenant="other"):
        for attempt in (desk.stores[0].get(approval_id), desk.stores[0].decide(approval_id, DENY, etag="")):
            with pytest.raises(ApprovalNotFound):
                await attempt
        assert await desk.stores[0].page(after=None, limit=9, state=State.PENDING, run_id="") == []
        async with desk.databases[0].transaction() as connection:
            await cancel_of_run(connection, "run")
            assert await of_run(connection, "run") == []
        assert await desk.stores[0].ring(approval_id) is None
    assert (await desk.stores[0].get(approval_id)).state is State.PENDING


async def test_of_two_who_decide_otherwise_at_once_one_is_told_so(desk: Desk) -> None:
    for _ in range(10):
        desk.resumed.clear()
        approval_id = await asking(desk.databases[0])
        results = await outcomes(
            *(store.decide(approval_id, decision, etag="1") for store in desk.stores for decision in (APPROVE, DENY))
        )
        state = (await desk.stores[0].get(approval_id)).state
        told = [each.metadata["state"] for each in results if isinstance(each, ApprovalDecided)]
        # Whoever said what the first did is content.
        assert told == [state, state]
        assert desk.resumed == ["run"]


async def test_the_same_decision_again_changes_nothing(desk: Desk) -> None:
    approval_id = await asking(desk.databases[0])
    first = await desk.stores[0].decide(approval_id, DENY, etag="1")
    assert (first.state, first.decided_by, first.comment) == (State.DENIED, "ada", "Not today.")
    with caller(principal="bob"):
        assert await desk.stores[1].decide(approval_id, DENY, etag="1") == first
    assert desk.resumed == ["run"]
    assert await facts(desk.databases[0]) == ["Requested", "Decided"]


async def test_who_decides_what_has_changed_since_is_told_so(desk: Desk) -> None:
    approval_id = await asking(desk.databases[0])
    await pass_time(desk.databases[0], 6)
    await desk.ring()
    with pytest.raises(EtagMismatch):
        await desk.stores[0].decide(approval_id, DENY, etag="1")
    assert (await desk.stores[0].decide(approval_id, DENY, etag="2")).etag == "3"


async def test_edited_arguments_are_checked_and_take_the_place_of_those_shown(desk: Desk) -> None:
    async def check(tool: str, arguments: Any) -> None:
        if arguments.get("to") != "bob":
            raise ToolArgumentsInvalid(tool, problem="unknown recipient")

    engine = Approvals(store=desk.stores[0], check=check, heartbeat=1)
    approval_id = await asking(desk.databases[0])
    with pytest.raises(ToolArgumentsInvalid) as refused:
        await engine.decide(approval_id, replace(APPROVE, arguments={"to": "eve"}), etag="")
    assert [each.field for each in refused.value.violations] == ["arguments"]
    assert (await engine.get(approval_id)).state is State.PENDING
    edited = await engine.decide(approval_id, replace(APPROVE, arguments={"to": "bob"}), etag="")
    assert (edited.arguments, edited.edited, edited.granted) == ({"to": "bob"}, True, True)
    with pytest.raises(ApprovalDecided):
        await engine.decide(approval_id, replace(APPROVE, arguments={"to": "eve"}), etag="")


async def test_a_decision_after_which_the_run_cannot_go_on_is_none(desk: Desk) -> None:
    approval_id = await asking(desk.databases[0])
    desk.failure = DependencyUnavailable("test")
    with pytest.raises(DependencyUnavailable):
        await desk.stores[0].decide(approval_id, APPROVE, etag="")
    await pass_time(desk.databases[0], 11)
    assert await desk.ring() == [0, 0]
    assert (await desk.stores[0].get(approval_id)).state is State.PENDING
    desk.failure = None
    assert sum(await desk.ring()) == 1
    assert (await desk.stores[0].get(approval_id)).state is State.EXPIRED


async def test_time_reminds_escalates_and_expires_once_whoever_looks(desk: Desk) -> None:
    approval_ids = [await asking(desk.databases[0], on_expiry=policy) for policy in ExpiryPolicy]
    for hours in (4, 1.5, 3.7, 1):
        await pass_time(desk.databases[0], hours)
        rung = [sum(await desk.ring()) for _ in range(2)]
        assert rung == ([0, 0] if hours == 4 else [3, 0])
    for approval_id in approval_ids:
        expired = await desk.stores[0].get(approval_id)
        assert (expired.state, expired.decided_by) == (State.EXPIRED, "")
        assert None not in (expired.remind_time, expired.escalate_time, expired.decide_time)
    assert sorted(await facts(desk.databases[0])) == sorted(["Requested", "Reminded", "Escalated", "Expired"] * 3)
    assert desk.resumed == ["run"] * 3


async def test_nobody_is_reminded_of_what_expired_while_all_were_away(desk: Desk) -> None:
    approval_id = await asking(desk.databases[0])
    await pass_time(desk.databases[0], 100)
    assert sum(await desk.ring()) == 1
    assert await facts(desk.databases[0]) == ["Requested", "Expired"]
    assert await desk.stores[0].ring(approval_id) is None


async def test_what_is_overdue_is_decided_by_nobody_even_before_its_alarm_rings(desk: Desk) -> None:
    approval_id = await asking(desk.databases[0])
    await pass_time(desk.databases[0], 11)
    with pytest.raises(ApprovalDecided) as refused:
        await desk.stores[0].decide(approval_id, APPROVE, etag="")
    assert refused.value.metadata["state"] == State.EXPIRED
    assert desk.resumed == []
    assert await desk.stores[1].ring(approval_id) is Alarm.EXPIRE
    assert desk.resumed == ["run"]


async def test_what_is_decided_as_it_expires_is_expired_once(desk: Desk) -> None:
    for round_ in range(4):
        desk.resumed.clear()
        approval_id = await asking(desk.databases[0])
        await pass_time(desk.databases[0], 11)
        attempts: list[Awaitable[Any]] = [
            desk.stores[0].decide(approval_id, APPROVE, etag=""),
            desk.stores[1].ring(approval_id),
        ]
        decided = (await outcomes(*attempts))[0] if round_ % 2 else (await outcomes(*attempts[::-1]))[1]
        assert isinstance(decided, ApprovalDecided)
        # Whoever decided may have held it as the alarm looked; then it rings again.
        await desk.stores[1].ring(approval_id)
        assert (await desk.stores[0].get(approval_id)).state is State.EXPIRED
        assert desk.resumed == ["run"]


async def test_what_an_ended_run_asked_is_cancelled(desk: Desk) -> None:
    database = desk.databases[0]
    decided = await asking(database)
    await desk.stores[0].decide(decided, APPROVE, etag="")
    pending, other = await asking(database), await asking(database, run_id="another")
    async with database.transaction() as connection:
        await cancel_of_run(connection, "run")
        found = await of_run(connection, "run")
    assert [(each.id, each.state) for each in found] == [(decided, State.APPROVED), (pending, State.CANCELLED)]
    with pytest.raises(ApprovalDecided):
        await desk.stores[0].decide(pending, APPROVE, etag="")
    assert (await desk.stores[0].get(other)).state is State.PENDING
    await pass_time(database, 11)
    assert sum(await desk.ring()) == 1


async def test_a_run_that_looks_and_parks_in_one_transaction_misses_no_decision(desk: Desk) -> None:
    database, other = desk.databases
    async with database.transaction() as connection:
        job_id, _ = await jobs.enqueue(connection, kind="chat", payload={}, subject_id="c")
        approval_id = await ask(connection, replace(MAIL, run_id=job_id))

    async def is_waited_for() -> bool:
        (row,) = await other.fetch("SELECT count(*) AS waiting FROM pg_locks WHERE NOT granted")
        return bool(row["waiting"])

    async with asyncio.timeout(SECONDS), background() as group, database.transaction() as connection:
        await connection.execute("SELECT FROM jobs WHERE id = %s FOR SHARE", [job_id])
        (seen,) = await of_run(connection, job_id)
        deciding = group.create_task(desk.stores[1].decide(approval_id, APPROVE, etag=""))
        await until(is_waited_for)
        assert (seen.state, deciding.done(), desk.resumed) == (State.PENDING, False, [])
    # It is decided after the run has parked, and so finds it parked.
    assert deciding.result().state is State.APPROVED
    assert desk.resumed == [job_id]


async def test_a_deleted_conversation_takes_its_approvals_along(desk: Desk) -> None:
    approval_id = await asking(desk.databases[0])
    await PostgresConversations(database=desk.databases[0]).delete("c")
    with pytest.raises(ApprovalNotFound):
        await desk.stores[0].get(approval_id)


class Watching:
    """A watch of one replica, as far as it has come."""

    def __init__(self, replica: Replica, *, run_id: str = "") -> None:
        self._call = replica.approvals.WatchApprovals(pb.WatchApprovalsRequest(run_id=run_id), timeout=SECONDS)

    async def next(self) -> pb.Approval:
        async for event in self._call:
            if event.WhichOneof("payload") == "approval":
                return event.approval
        raise AssertionError("the watch ended")

    async def heartbeat(self) -> None:
        async for event in self._call:
            if event.WhichOneof("payload") == "heartbeat":
                return

    def leave(self) -> None:
        self._call.cancel()


def deciding(approval_id: str, decision: str = "APPROVE", **fields: Any) -> pb.DecideApprovalRequest:
    request = {"approval_id": approval_id, "decision": f"DECISION_{decision}", **fields}
    return ParseDict(request, pb.DecideApprovalRequest())


async def test_a_watch_begins_with_what_is_pending_and_tells_each_change_on_any_replica(mesh: Mesh) -> None:
    async with mesh.replica("server") as one, mesh.replica("server", heartbeat_seconds=0.2) as other:
        await make_conversation(one.database)
        decided, first = await asking(one.database), await asking(one.database, due_in=timedelta(hours=1))
        await one.approvals.DecideApproval(deciding(decided, "DENY"))
        second = await asking(one.database, run_id="another")
        watches = [Watching(one), Watching(other)]
        for watch in watches:
            assert [(await watch.next()).id for _ in range(2)] == [first, second]
        only = Watching(other, run_id="another")
        assert (await only.next()).id == second
        await one.approvals.DecideApproval(deciding(first, comment="Well."))
        third = await asking(other.database)
        for watch in watches:
            changed = await watch.next()
            assert (changed.id, changed.state, changed.comment) == (first, pb.APPROVAL_STATE_APPROVED, "Well.")
            assert (await watch.next()).id == third
        await other.approvals.DecideApproval(deciding(second, "DENY"))
        assert (await only.next()).state == pb.APPROVAL_STATE_DENIED
        await only.heartbeat()
        with caller(tenant="other"):
            stranger = Watching(other)
            await stranger.heartbeat()
        for watch in (*watches, only, stranger):
            watch.leave()


@pytest.mark.parametrize("pending", [4, 5])
async def test_a_watch_reads_what_is_pending_in_pages(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, pending: int
) -> None:
    monkeypatch.setattr(postgres_approvals, "_STANDING_PAGE", 2)
    async with mesh.replica("server") as replica:
        await make_conversation(replica.database)
        asked = [await asking(replica.database) for _ in range(pending)]
        watch = Watching(replica)
        assert [(await watch.next()).id for _ in range(pending)] == asked
        await replica.approvals.DecideApproval(deciding(asked[0]))
        assert (await watch.next()).id == asked[0]
        watch.leave()


async def test_approvals_are_listed_in_pages_those_due_first(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        await make_conversation(replica.database)
        hours = [5, 1, 4, 2, 3]
        ids = {
            each: await asking(replica.database, due_in=timedelta(hours=each), run_id=f"run-{each}") for each in hours
        }
        listed, token = [], ""
        for size in (2, 2, 1):
            page = await replica.approvals.ListApprovals(pb.ListApprovalsRequest(page_size=2, page_token=token))
            assert len(page.approvals) == size
            listed += [each.id for each in page.approvals]
            token = page.next_page_token
        assert (listed, token) == ([ids[each] for each in sorted(hours)], "")
        of_one = await replica.approvals.ListApprovals(pb.ListApprovalsRequest(run_id="run-3"))
        assert [each.id for each in of_one.approvals] == [ids[3]]
        await replica.approvals.DecideApproval(deciding(ids[3]))
        for state, count in ((pb.APPROVAL_STATE_APPROVED, 1), (pb.APPROVAL_STATE_UNSPECIFIED, 4)):
            found = await replica.approvals.ListApprovals(pb.ListApprovalsRequest(state=state))
            assert len(found.approvals) == count


async def test_a_decision_is_kept_as_it_was_made_and_once_under_its_key(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        await make_conversation(replica.database)
        approval_id = await asking(replica.database, kind=Kind.QUESTION, tool_name="", arguments={})
        request = deciding(approval_id, "ANSWER", answer="At noon.", comment="If it rains.", etag="1")
        key = [("idempotency-key", "k")]
        said = await replica.approvals.DecideApproval(request, metadata=key)
        assert (said.state, said.answer, said.comment) == (pb.APPROVAL_STATE_ANSWERED, "At noon.", "If it rains.")
        assert (said.decided_by, said.etag) == ("ada", "2")
        assert await replica.approvals.DecideApproval(request, metadata=key) == said
        assert await replica.approvals.GetApproval(pb.GetApprovalRequest(approval_id=approval_id)) == said


Refusal = tuple[Callable[[Replica, str], Awaitable[object]], str, StatusCode]
REFUSALS: dict[str, Refusal] = {
    "nothing of this id": (
        lambda replica, _: replica.approvals.GetApproval(pb.GetApprovalRequest(approval_id="none")),
        "APPROVAL_NOT_FOUND",
        StatusCode.NOT_FOUND,
    ),
    "a decision on nothing": (
        lambda replica, _: replica.approvals.DecideApproval(deciding("none")),
        "APPROVAL_NOT_FOUND",
        StatusCode.NOT_FOUND,
    ),
    "no decision": (
        lambda replica, id_: replica.approvals.DecideApproval(pb.DecideApprovalRequest(approval_id=id_)),
        "INVALID_FIELD",
        StatusCode.INVALID_ARGUMENT,
    ),
    "a foreign page token": (
        lambda replica, _: replica.approvals.ListApprovals(pb.ListApprovalsRequest(page_token="x")),
        "PAGE_TOKEN_INVALID",
        StatusCode.INVALID_ARGUMENT,
    ),
    "a decision that does not fit": (
        lambda replica, id_: replica.approvals.DecideApproval(deciding(id_, "ANSWER", answer="x")),
        "DECISION_INVALID",
        StatusCode.INVALID_ARGUMENT,
    ),
    "an answer beside an approval": (
        lambda replica, id_: replica.approvals.DecideApproval(deciding(id_, answer="x")),
        "DECISION_INVALID",
        StatusCode.INVALID_ARGUMENT,
    ),
    "a number that is none": (
        lambda replica, id_: replica.approvals.DecideApproval(_with_number(id_, float("inf"))),
        "TOOL_ARGUMENTS_INVALID",
        StatusCode.INVALID_ARGUMENT,
    ),
    "an etag of before": (
        lambda replica, id_: replica.approvals.DecideApproval(deciding(id_, etag="7")),
        "ETAG_MISMATCH",
        StatusCode.ABORTED,
    ),
}


async def _nobody(connection: AsyncConnection[Row], run_id: str) -> None:
    """No run waits for it."""


def _with_number(approval_id: str, number: float) -> pb.DecideApprovalRequest:
    request = deciding(approval_id)
    request.arguments.update({"times": number})
    return request


async def test_whatever_cannot_be_done_has_its_reason(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        await make_conversation(replica.database)
        approval_id = await asking(replica.database)
        for call, reason, code in REFUSALS.values():
            with pytest.raises(aio.AioRpcError) as refused:
                await call(replica, approval_id)
            assert (reason_of(refused.value), refused.value.code()) == (reason, code)
        await replica.approvals.DecideApproval(deciding(approval_id, "DENY"))
        with pytest.raises(aio.AioRpcError) as refused:
            await replica.approvals.DecideApproval(deciding(approval_id))
        assert reason_of(refused.value) == "APPROVAL_DECIDED"
        assert refused.value.code() is StatusCode.FAILED_PRECONDITION
        late = await asking(replica.database)
        await pass_time(replica.database, 100)
        await AlarmClock(alarms=PostgresApprovals(database=replica.database, bus=None, resume=_nobody)).ring()
        with pytest.raises(aio.AioRpcError) as refused:
            await replica.approvals.DecideApproval(deciding(late))
        assert reason_of(refused.value) == "APPROVAL_DECIDED"
        shown = await replica.approvals.GetApproval(pb.GetApprovalRequest(approval_id=late))
        assert shown.state == pb.APPROVAL_STATE_EXPIRED


async def test_the_service_itself_sees_to_what_nobody_decides(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        await make_conversation(replica.database)
        approval_id = await asking(replica.database)
        watch = Watching(replica)
        assert (await watch.next()).state == pb.APPROVAL_STATE_PENDING
        await pass_time(replica.database, 11)
        expired = await watch.next()
        assert (expired.id, expired.state) == (approval_id, pb.APPROVAL_STATE_EXPIRED)
        watch.leave()
