"""Approvals: looked at, watched, decided, and what time does to those that nobody decides."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import structlog
from loremesh_kit import identity
from loremesh_kit.errors import ServiceError
from loremesh_kit.ids import new_id
from loremesh_kit.loops import repeat, unless
from loremesh_kit.pages import Position

from loremesh_agent.domain import approvals
from loremesh_agent.domain.approvals import Approval, Decision, State
from loremesh_agent.ports import ApprovalAlarms, ApprovalStore

# Raises ToolArgumentsInvalid, ToolNotFound or ToolUnavailable unless a tool takes these arguments.
Check = Callable[[str, Mapping[str, Any]], Awaitable[object]]

_ALARM_SECONDS = 1.0
_ALARMS_AT_ONCE = 100
_log = structlog.get_logger(__name__)


class Approvals:
    """The use cases of ApprovalService."""

    def __init__(self, *, store: ApprovalStore, check: Check, heartbeat: float) -> None:
        """`check` judges arguments that somebody edited; `heartbeat` is in seconds."""
        self._store = store
        self._check = check
        self._heartbeat = heartbeat

    async def get(self, approval_id: str) -> Approval:
        """Raises ApprovalNotFound."""
        return await self._store.get(approval_id)

    async def page(
        self, *, after: Position | None, limit: int, state: State, run_id: str, assignee: str
    ) -> Sequence[Approval]:
        """Those due first; see ports.ApprovalStore."""
        return await self._store.page(after=after, limit=limit, state=state, run_id=run_id, assignee=assignee)

    async def decide(self, approval_id: str, decision: Decision, *, etag: str) -> Approval:
        """The approval as it was decided, now or before.

        Raises ApprovalNotFound, DecisionInvalid, ApprovalDecided, EtagMismatch and what `check` does.
        """
        approval = await self._store.get(approval_id)
        approvals.check(approval, decision)
        if decision.arguments is not None and not approvals.said_before(approval, decision):
            await self._check(approval.tool_name, decision.arguments)
        return await self._store.decide(approval_id, decision, etag=etag)

    async def reassign(self, approval_id: str, assignee: str, *, etag: str) -> Approval:
        """The approval, of which somebody else is asked. Raises ApprovalNotFound, ApprovalDecided, EtagMismatch."""
        return await self._store.reassign(approval_id, assignee, etag=etag)

    async def watch(self, *, run_id: str) -> AsyncGenerator[Approval | None, None]:
        """Approvals pending, and each as it changes, for ever; None after a while without any."""
        async with aclosing(self._store.watch(run_id=run_id, heartbeat=self._heartbeat)) as changes:
            async for approval in changes:
                yield approval


class AlarmClock:
    """Has approvals reminded of, escalated and expired when it is time; any number may run."""

    def __init__(self, *, alarms: ApprovalAlarms) -> None:
        self._alarms = alarms

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop`."""

        async def step() -> None:
            if await self.ring() == 0:
                await unless(stop, asyncio.sleep(_ALARM_SECONDS))

        await repeat(step, stop=stop, name="approval alarms")

    async def ring(self) -> int:
        """Do what is due now; how much of it there was to do for this process."""
        rung = 0
        for due in await self._alarms.due(limit=_ALARMS_AT_ONCE):
            # Nobody decided, so it is nobody's doing; but it is done for whom the run works.
            who = identity.Identity(tenant=due.tenant, principal=due.principal, request_id=new_id())
            with identity.scope(who):
                try:
                    alarm = await self._alarms.ring(due.approval_id)
                except ServiceError as error:
                    # One that cannot be told now must not keep the others from it.
                    _log.warning("will try again", approval_id=due.approval_id, reason=error.reason)
                    continue
            if alarm is not None:
                rung += 1
                _log.info("approval", approval_id=due.approval_id, alarm=alarm)
        return rung
