"""Facts of other services, and what they mean for us."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence

import structlog
from loremesh_kit import identity
from loremesh_kit.consumer import consume
from loremesh_kit.errors import ServiceError
from loremesh_kit.events import Bus, Message, stream_of, subject
from loremesh_kit.loops import background, repeat

from loremesh_crew.engine.hearing import Hearing, run_of

_SOURCE = "agent"
_FACTS = ("TaskFinished", "TaskWaiting", "TaskResumed", "WorkDelegated")
_SUBJECTS = [subject(_SOURCE, f"events.{fact}") for fact in _FACTS]
_DURABLE = "crew-tasks"
_AGAIN_SECONDS = 2.0
_BATCH = 64
_log = structlog.get_logger(__name__)


class TaskFacts:
    """Brings what is said of tasks to their runs; any number may run."""

    def __init__(self, *, bus: Bus, hearing: Hearing) -> None:
        self._bus = bus
        self._hearing = hearing

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until `stop`."""
        await repeat(lambda: self._listen(stop), stop=stop, name="facts of tasks")

    async def _listen(self, stop: asyncio.Event) -> None:
        async for messages in consume(
            self._bus, stream=stream_of(_SOURCE), durable=_DURABLE, subjects=_SUBJECTS, stop=stop, batch=_BATCH
        ):
            await self.take(messages)

    async def take(self, messages: Sequence[Message]) -> None:
        """Runs at the same time, and what is said of one run together: its row is locked once for all of it."""
        of_run: dict[tuple[str, str], list[tuple[Message, str]]] = defaultdict(list)
        for message in messages:
            tenant, task_id = message.headers.get(identity.TENANT_HEADER, ""), _task_id(message)
            if not tenant or not run_of(task_id):
                _log.error("a fact that cannot be read", subject=message.subject, id=message.id)
                await message.ack()
            else:
                of_run[tenant, run_of(task_id)].append((message, task_id))
        async with background() as group:
            for (tenant, _), facts in of_run.items():
                group.create_task(self._hear(tenant, facts))

    async def _hear(self, tenant: str, facts: Sequence[tuple[Message, str]]) -> None:
        headers = facts[0][0].headers
        who = identity.Identity(
            tenant=tenant,
            principal=headers.get(identity.PRINCIPAL_HEADER, ""),
            request_id=headers.get(identity.REQUEST_ID_HEADER, ""),
        )
        try:
            with identity.scope(who):
                await self._hearing.hear(task_id for _, task_id in facts)
        except ServiceError as error:
            _log.warning("will try again", reason=error.reason, run_id=run_of(facts[0][1]))
            for message, _ in facts:
                await message.nak(_AGAIN_SECONDS)
            return
        except Exception:  # noqa: BLE001 - one run that cannot be decided must not hold up others
            # Said again and again it would come out the same; whoever asks after silent tasks goes on trying.
            _log.exception("a fact that cannot be taken", run_id=run_of(facts[0][1]))
        for message, _ in facts:
            await message.ack()


def _task_id(message: Message) -> str:
    try:
        body = json.loads(message.data)
    except ValueError:
        return ""
    match body:
        case {"task_id": str(task_id)}:
            return task_id
    return ""
