"""Jobs: shown, and taken up again when they were given up."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from loremesh_kit import dead_letters, job_list
from loremesh_kit.dead_letters import DeadLetter, Which
from loremesh_kit.job_list import ListedJob
from loremesh_kit.postgres import Database

from loremesh_ingestion.domain.document import Document, Standing, standing
from loremesh_ingestion.domain.jobs import EMBED_BATCH, INDEX
from loremesh_ingestion.errors import JobNotDead, JobNotFound
from loremesh_ingestion.records import Connection, DocumentRecords

MOST_AT_ONCE = 1000

Begin = Callable[[Connection, Sequence[Document]], Awaitable[object]]


class Jobs:
    """The use cases of JobService."""

    def __init__(self, *, database: Database, documents: DocumentRecords, begin: Begin) -> None:
        """`begin` starts the indexing of locked rows of a document anew, in the transaction it is given."""
        self._database = database
        self._documents = documents
        self._begin = begin

    async def get(self, job_id: str) -> ListedJob:
        """Raises JobNotFound."""
        job = await job_list.get(self._database, job_id)
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def page(self, *, state: str, kind: str, subject_id: str, before: str, limit: int) -> list[ListedJob]:
        """Newest first, older than the id `before`; what is empty does not restrict."""
        return await job_list.page(
            self._database, state=state, kind=kind, subject_id=subject_id, before=before, limit=limit
        )

    async def dead(self, which: Which, *, before: tuple[datetime, str] | None, limit: int) -> list[DeadLetter]:
        """The latest first; `before` is time of death and id of the last one seen."""
        return await dead_letters.page(self._database, which, before=before, limit=limit)

    async def replay(self, job_ids: Sequence[str], which: Which) -> tuple[list[str], bool]:
        """Take up these jobs, or else those that `which` says; their ids, and whether more are left.

        Raises JobNotFound and JobNotDead, and nothing is taken up then.
        """
        async with self._database.transaction() as connection:
            letters = await _hold(connection, job_ids, which)
            for letter in letters[:MOST_AT_ONCE]:
                await self._take_up(connection, letter)
        return [letter.id for letter in letters[:MOST_AT_ONCE]], len(letters) > MOST_AT_ONCE

    async def _take_up(self, connection: Connection, letter: DeadLetter) -> None:
        if letter.kind not in (INDEX, EMBED_BATCH):
            await dead_letters.requeue(connection, [letter.id])
            return
        # Its version has failed as a whole: another attempt at a part of it would have nothing to belong to.
        await dead_letters.strike_off(connection, [letter.id])
        document = await self._documents.lock(connection, letter.subject_id)
        if document is not None and standing(document, letter.payload["version"]) is Standing.FAILED:
            await self._begin(connection, [document])


async def _hold(connection: Connection, job_ids: Sequence[str], which: Which) -> list[DeadLetter]:
    if not job_ids:
        return await dead_letters.hold(connection, which, limit=MOST_AT_ONCE + 1)
    try:
        return await dead_letters.hold_these(connection, job_ids)
    except dead_letters.JobUnknown as error:
        raise JobNotFound(error.job_id) from error
    except dead_letters.JobNotDead as error:
        raise JobNotDead(error.job_id, state=error.state) from error
