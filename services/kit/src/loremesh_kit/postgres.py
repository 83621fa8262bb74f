"""Postgres: one pool, transactions that see one tenant only, and failures in words a caller understands."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, LiteralString, Protocol, TypeVar

import structlog
from psycopg import AsyncConnection, AsyncTransaction, OperationalError
from psycopg.errors import QueryCanceled
from psycopg.pq import PipelineStatus
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from loremesh_kit import deadline, identity
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable
from loremesh_kit.settings import ServiceSettings

Row = dict[str, Any]
Parameters = Mapping[str, Any] | Sequence[Any] | None
T = TypeVar("T")

_EVERY_TENANT = "*"
_NO_TENANT = ""
_ACQUIRE_SECONDS = 5.0
_STATEMENT_SECONDS = 30.0
# With parameters, so that a connection prepares it once.
_SCOPE = "SELECT set_config('app.tenant', %s, true), set_config('statement_timeout', %s, true)"
_FLEETING_SCOPE = f"{_SCOPE}, set_config('synchronous_commit', 'off', true)"
_log = structlog.get_logger(__name__)


class Taker(Protocol):
    """Whoever does jobs in this process."""

    @property
    def lease(self) -> float:
        """How many seconds a job is its own without a word from it."""
        ...

    def reserve(self) -> bool:
        """Whether it begins one more job as soon as that is committed; if so, `take` follows."""
        ...

    def take(self, job: Any | None) -> None:
        """The job was committed as its own; None: it was not."""
        ...


class Connection(AsyncConnection[Row]):
    """A connection that remembers what is to be done once its transaction has ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As psycopg calls it."""
        super().__init__(*args, **kwargs)
        self.topics: set[str] = set()
        self.taker: Taker | None = None
        self.afterwards: list[Callable[[bool], None]] = []

    @property
    def in_pipeline(self) -> bool:
        """Whether statements go out without being waited for."""
        return self._pipeline is not None or self.pgconn.pipeline_status != PipelineStatus.OFF

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """As psycopg's; what is to be done after what is undone is told so."""
        before = len(self.afterwards)
        try:
            async with super().transaction(savepoint_name, force_rollback) as transaction:
                yield transaction
        except BaseException:
            undone, self.afterwards = self.afterwards[before:], self.afterwards[:before]
            _tell_ended(undone, committed=False)
            raise


@asynccontextmanager
async def together(connection: AsyncConnection[Row]) -> AsyncIterator[None]:
    """Inside, statements go out together, and only what is fetched is waited for, and the end."""
    if connection.pgconn.pipeline_status == PipelineStatus.OFF:
        async with connection.pipeline():
            yield
    else:
        yield


def afterwards(connection: AsyncConnection[Row], callback: Callable[[bool], None]) -> None:
    """Call back once this transaction has ended, with whether it was committed; in doubt it counts as not."""
    if isinstance(connection, Connection):
        connection.afterwards.append(callback)


def taker_of(connection: AsyncConnection[Row]) -> Taker | None:
    """Who does jobs in this process; None in one without a worker."""
    return connection.taker if isinstance(connection, Connection) else None


def touch(connection: AsyncConnection[Row], topic: str) -> None:
    """Tell the database's listeners about `topic` if and when this transaction commits."""
    if isinstance(connection, Connection):
        connection.topics.add(topic)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    """A transaction that whatever its task does for its tenant becomes part of."""

    database: "Database"
    tenant: str
    task: "asyncio.Task[Any] | None"
    connection: Connection


_joined: ContextVar[_Joined | None] = ContextVar("loremesh_joined_transaction", default=None)


class Database:
    """Hands out transactions bound to one tenant; the role behind it is plain, so row-level security holds."""

    def __init__(self, *, pool: AsyncConnectionPool[Connection]) -> None:
        """`pool` is open and its connections are in autocommit mode."""
        self._pool = pool
        self._listeners: list[Callable[[str], None]] = []
        self._taker: Taker | None = None

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call `listener(topic)` after each commit in this process that touched `topic`."""
        self._listeners.append(listener)

    def attach(self, taker: Taker) -> Callable[[], None]:
        """Have jobs accepted in this process begun by `taker` where it can, until what this returns is called."""
        self._taker = taker

        def detach() -> None:
            if self._taker is taker:
                self._taker = None

        return detach

    def tell(self, topic: str) -> None:
        """Call the listeners, as a commit that touched `topic` would."""
        for listener in self._listeners:
            listener(topic)

    @asynccontextmanager
    async def transaction(self, tenant: str | None = None) -> AsyncIterator[AsyncConnection[Row]]:
        """Begin, yield the connection, commit; `tenant` defaults to the caller's.

        Raises IdentityMissing, DependencyUnavailable (also when the connection breaks on the way) and
        DeadlineExceeded when a statement outlives the caller's deadline or 30 s.
        """
        tenant = _one_tenant(tenant)
        if (outer := self._outer(tenant)) is None:
            async with self._transaction(tenant) as connection:
                yield connection
        else:
            with _translated():
                async with outer.transaction():
                    yield outer

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[AsyncConnection[Row]]:
        """A transaction of the caller's tenant whose statements go out together, its begin and its commit with them.

        Only what is fetched is waited for, so that a `rowcount` says nothing before; a statement's failure shows at the
        next fetch, or at the end, and undoes it all. Raises as `transaction` does; a connection that broke before it
        began is not replaced by another.
        """
        tenant = _one_tenant(None)
        if self._outer(tenant) is not None:
            async with self.transaction(tenant) as outer, together(outer):
                yield outer
        else:
            async with self._transaction(tenant, piped=True) as connection:
                yield connection

    @asynccontextmanager
    async def joined_transaction(self) -> AsyncIterator[AsyncConnection[Row]]:
        """A transaction of the caller's tenant that all its task does on this database meanwhile becomes part of.

        Inside, each `transaction` is a savepoint, `fetch` too; what they touch is told after the one commit. Tasks
        started inside have transactions of their own.
        """
        tenant = _one_tenant(None)
        async with self._transaction(tenant) as connection:
            mine = _Joined(database=self, tenant=tenant, task=asyncio.current_task(), connection=connection)
            token = _joined.set(mine)
            try:
                yield connection
            finally:
                _joined.reset(token)

    @asynccontextmanager
    async def transaction_across_tenants(self) -> AsyncIterator[AsyncConnection[Row]]:
        """A transaction that sees the queue tables of every tenant and nothing else; for the kit's queue code."""
        async with self._transaction(_EVERY_TENANT) as connection:
            yield connection

    async def fetch(
        self,
        query: LiteralString,
        parameters: Parameters = None,
        *,
        tenant: str | None = None,
    ) -> list[Row]:
        """Run one statement as a transaction of its own in one round trip; raises as `transaction` does.

        When the connection breaks it is run once more, so it must be a statement that may run twice.
        """
        tenant = _one_tenant(tenant)
        if self._outer(tenant) is None:
            return await self._fetch(tenant, query, parameters)
        async with self.transaction(tenant) as connection:
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def fetch_across_tenants(
        self, query: LiteralString, parameters: Parameters = None, *, lasting: bool = True
    ) -> list[Row]:
        """`fetch` on the queue tables of every tenant; for the kit's queue code.

        What is not `lasting` does not wait for the disk: where the machine loses power it may never have been.
        """
        return await self._fetch(_EVERY_TENANT, query, parameters, lasting=lasting)

    async def probe(self) -> None:
        """Ask for an answer; raises DependencyUnavailable when there is none."""
        await self._fetch(_NO_TENANT, "SELECT 1", None)

    async def ready(self) -> None:
        """Wait until Postgres answers, for start-up code which cannot go on without it."""
        delay = 0.1
        while True:
            try:
                return await self.probe()
            except DependencyUnavailable:
                _log.warning("waiting for postgres", retry_in_seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)

    def _outer(self, tenant: str) -> Connection | None:
        joined = _joined.get()
        if joined is None or (joined.database, joined.tenant, joined.task) != (self, tenant, asyncio.current_task()):
            return None
        return joined.connection

    @asynccontextmanager
    async def _transaction(self, tenant: str, *, piped: bool = False) -> AsyncIterator[Connection]:
        async def begin(connection: Connection) -> None:
            async with connection.pipeline():
                await connection.execute("BEGIN")
                await connection.execute(_SCOPE, _scope(tenant))

        if not piped:
            async with self._connection(begin) as (connection, _):
                yield connection
            return
        async with self._connection(_nothing) as (connection, _):
            try:
                async with connection.pipeline():
                    await connection.execute("BEGIN")
                    await connection.execute(_SCOPE, _scope(tenant))
                    yield connection
                    await connection.execute("COMMIT")
            except QueryCanceled:
                raise
            except OperationalError:
                # So that whoever is told so and tries again finds no other that broke, too.
                await self._pool.check()
                raise

    async def _fetch(
        self, tenant: str, query: LiteralString, parameters: Parameters, *, lasting: bool = True
    ) -> list[Row]:
        scope = _scope(tenant)

        async def run(connection: Connection) -> list[Row]:
            async with connection.pipeline():
                await connection.execute("BEGIN")
                await connection.execute(_SCOPE if lasting else _FLEETING_SCOPE, scope)
                cursor = await connection.execute(query, parameters)
                await connection.execute("COMMIT")
            return await cursor.fetchall() if cursor.description else []

        async with self._connection(run) as (_, rows):
            return rows

    @asynccontextmanager
    async def _connection(
        self,
        first: Callable[[Connection], Awaitable[T]],
    ) -> AsyncIterator[tuple[Connection, T]]:
        """Yield a connection and what `first` made of it; commit, give it back, then tell the listeners."""
        with _translated():
            connection, result = await self._begin(first)
            committed = False
            try:
                async with connection:
                    yield connection, result
                committed = True
            finally:
                topics, ended = tuple(connection.topics), connection.afterwards
                try:
                    await self._give_back(connection)
                finally:
                    _tell_ended(ended, committed=committed)
        for topic in topics:
            self.tell(topic)

    async def _give_back(self, connection: Connection) -> None:
        if connection.in_pipeline:
            # Whoever had it was cut off as they left: nobody knows what is still on its way.
            await connection.close()
        await self._pool.putconn(connection)

    async def _begin(self, first: Callable[[Connection], Awaitable[T]]) -> tuple[Connection, T]:
        # A restart of Postgres leaves dead connections in the pool; checking each one at each use would cost
        # a round trip, so the first failure checks them all and tries again.
        try:
            return await self._begin_once(first)
        except QueryCanceled:
            raise
        except OperationalError:
            await self._pool.check()
            return await self._begin_once(first)

    async def _begin_once(self, first: Callable[[Connection], Awaitable[T]]) -> tuple[Connection, T]:
        connection = await self._pool.getconn(timeout=deadline.within(_ACQUIRE_SECONDS))
        connection.topics.clear()
        connection.taker, connection.afterwards = self._taker, []
        try:
            return connection, await first(connection)
        except BaseException:
            await self._give_back(connection)
            raise


def _tell_ended(callbacks: Sequence[Callable[[bool], None]], *, committed: bool) -> None:
    for callback in callbacks:
        callback(committed)


async def _nothing(_: Connection) -> None:
    """Begin with nothing."""


def _one_tenant(tenant: str | None) -> str:
    tenant = identity.current().tenant if tenant is None else tenant
    if tenant in (_NO_TENANT, _EVERY_TENANT):
        message = "a transaction needs one tenant"
        raise ValueError(message)
    return tenant


def _scope(tenant: str) -> list[str]:
    return [tenant, str(max(1, int(deadline.within(_STATEMENT_SECONDS) * 1000)))]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except QueryCanceled as error:
        raise DeadlineExceeded from error
    except (OperationalError, PoolTimeout) as error:
        _log.warning("postgres failed", error=str(error).strip())
        raise DependencyUnavailable("postgres") from error


async def _configure(connection: Connection) -> None:
    # A frozen process must not hold its row locks for ever.
    await connection.execute("SET idle_in_transaction_session_timeout = '15s'")


@asynccontextmanager
async def open_database(settings: ServiceSettings) -> AsyncIterator[Database]:
    """Open the pool without waiting for Postgres; until it answers, calls raise DependencyUnavailable."""
    pool = AsyncConnectionPool(
        settings.database_url.get_secret_value(),
        connection_class=Connection,
        kwargs={
            "autocommit": True,
            "row_factory": dict_row,
            "connect_timeout": 5,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
        configure=_configure,
        min_size=1,
        max_size=settings.database_pool_size,
        timeout=_ACQUIRE_SECONDS,
        # The pool's own backoff doubles without bound; giving up early lets the next caller try afresh.
        reconnect_timeout=2.0,
        open=False,
    )
    async with pool:
        yield Database(pool=pool)
