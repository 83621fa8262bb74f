"""What other services are told of tasks, in the transactions in which it becomes true."""

from loremesh_kit.outbox import emit
from loremesh_kit.postgres import Row
from psycopg import AsyncConnection

FINISHED = "TaskFinished"
WAITING = "TaskWaiting"
RESUMED = "TaskResumed"


async def tell(connection: AsyncConnection[Row], fact: str, *, task_id: str | None) -> None:
    """Tell it of a run that is a task's; nothing for others."""
    if task_id:
        await emit(connection, name=fact, payload={"task_id": task_id})
