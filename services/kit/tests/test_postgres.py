# ruff: noqa: PT012 - what raises is the end of the block
"""Transactions and row-level security on a real PostgreSQL, as the plain role."""

import asyncio
import time
from contextlib import AsyncExitStack, suppress

import psycopg
import pytest
from loremesh_kit import deadline
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable, IdentityMissing
from loremesh_kit.postgres import open_database, together, touch
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread

INSERT = "INSERT INTO inbox (tenant, consumer, message_id) VALUES (%s, 'c', %s)"
COUNT = "SELECT count(*) AS n FROM inbox"


async def count(database, tenant):
    return (await database.fetch(COUNT, tenant=tenant))[0]["n"]


async def test_a_transaction_commits_as_its_callers_tenant(database):
    with caller(tenant="acme"):
        async with database.transaction() as connection:
            await connection.execute(INSERT, ["acme", "1"])
        assert (await database.fetch(COUNT))[0]["n"] == 1


async def test_a_failed_block_leaves_nothing(database):
    with pytest.raises(RuntimeError, match="no"):
        async with database.transaction("acme") as connection:
            await connection.execute(INSERT, ["acme", "1"])
            raise RuntimeError("no")

    assert await count(database, "acme") == 0


async def test_a_tenant_sees_its_own_rows_only(database):
    for tenant in ("acme", "globex"):
        async with database.transaction(tenant) as connection:
            await connection.execute(INSERT, [tenant, "1"])

    assert await count(database, "acme") == 1
    async with database.transaction("acme") as connection:
        touched = await connection.execute("UPDATE inbox SET consumer = 'mine'")
        assert touched.rowcount == 1
        gone = await connection.execute("DELETE FROM inbox WHERE tenant = 'globex'")
        assert gone.rowcount == 0
    assert await count(database, "globex") == 1


async def test_a_tenant_cannot_write_for_another(database):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.transaction("acme") as connection:
            await connection.execute(INSERT, ["globex", "1"])


async def test_forgetting_the_tenant_sees_nothing_and_writes_nothing(database, database_urls):
    async with database.transaction("acme") as connection:
        await connection.execute(INSERT, ["acme", "1"])
    async with await psycopg.AsyncConnection.connect(database_urls.plain) as connection:
        assert await (await connection.execute(COUNT)).fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(INSERT, ["acme", "2"])


async def test_the_owner_is_no_exception(database, database_urls):
    async with database.transaction("acme") as connection:
        await connection.execute(INSERT, ["acme", "1"])
    async with await psycopg.AsyncConnection.connect(database_urls.owner) as connection:
        await connection.execute("SET search_path TO agent")
        assert await (await connection.execute(COUNT)).fetchone() == (0,)


async def test_the_tenant_does_not_stay_on_the_connection(database):
    async with database.transaction("acme") as connection:
        await connection.execute(INSERT, ["acme", "1"])
    await database.fetch(COUNT, tenant="acme")

    async with AsyncExitStack() as stack:
        # All of them: the pool may have grown meanwhile, and the new ones never saw a tenant.
        for _ in range(database._pool.get_stats()["pool_size"]):
            bare = await stack.enter_async_context(database._pool.connection())
            row = await (await bare.execute("SELECT current_setting('app.tenant', true) AS tenant")).fetchone()
            assert not row["tenant"]


async def test_across_tenants_sees_queues_and_no_content(database):
    for tenant in ("acme", "globex"):
        async with database.transaction(tenant) as connection:
            await connection.execute(INSERT, [tenant, "1"])
            await connection.execute(
                "INSERT INTO events (tenant, run_id, seq, kind, payload, attempt, path)"
                " VALUES (%s, 'r', 1, 'k', '{}', 1, '{}')",
                [tenant],
            )

    assert (await database.fetch_across_tenants(COUNT))[0]["n"] == 2
    assert (await database.fetch_across_tenants("SELECT count(*) AS n FROM events"))[0]["n"] == 0


@pytest.mark.parametrize("tenant", ["*", ""])
async def test_no_caller_becomes_every_tenant(database, tenant):
    with pytest.raises(ValueError, match="one tenant"):
        async with database.transaction(tenant):
            pass
    with caller(tenant=tenant), pytest.raises(ValueError, match="one tenant"):
        await database.fetch(COUNT)


async def test_without_identity_there_is_no_transaction(database):
    with pytest.raises(IdentityMissing):
        async with database.transaction():
            pass


async def test_listeners_hear_of_commits_and_not_of_failures(database):
    heard = []
    database.listen(heard.append)
    with pytest.raises(RuntimeError):
        async with database.transaction("acme") as connection:
            touch(connection, "lost")
            raise RuntimeError
    async with database.transaction("acme") as connection:
        touch(connection, "kept")
        assert heard == []

    assert heard == ["kept"]
    async with database.transaction("acme"):
        pass
    assert heard == ["kept"]


async def test_a_statement_ends_with_the_callers_deadline(database):
    started = time.monotonic()
    with deadline.scope(0.3), pytest.raises(DeadlineExceeded):
        async with database.transaction("acme") as connection:
            await connection.execute("SELECT pg_sleep(30)")

    assert time.monotonic() - started < 5
    assert await count(database, "acme") == 0


async def terminate_backends(postgres_url, role):
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])


async def test_connections_lost_while_idle_are_not_noticed_by_callers(database, postgres_url):
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(database.fetch("SELECT pg_sleep(0.05)", tenant="acme"))
    await terminate_backends(postgres_url, "agent")

    async with database.transaction("acme") as connection:
        await connection.execute(INSERT, ["acme", "1"])
    assert await count(database, "acme") == 1


async def test_statements_that_go_out_together_are_a_transaction_of_the_caller(database):
    with caller(tenant="acme"):
        async with database.pipeline() as connection:
            await connection.execute(INSERT, ["acme", "1"])
            found = await connection.execute(COUNT)
            await connection.execute(INSERT, ["acme", "2"])
            assert (await found.fetchone())["n"] == 1
        assert await count(database, "acme") == 2

        with pytest.raises(RuntimeError):
            async with database.pipeline() as connection:
                await connection.execute(INSERT, ["acme", "3"])
                raise RuntimeError
        # Of a statement that nobody fetches from the end tells.
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with database.pipeline() as connection:
                await connection.execute(INSERT, ["acme", "3"])
                await connection.execute(INSERT, ["acme", "1"])
                await connection.execute(INSERT, ["acme", "4"])
        with deadline.scope(0.3), pytest.raises(DeadlineExceeded):
            async with database.pipeline() as connection:
                await connection.execute(INSERT, ["acme", "3"])
                await connection.execute("SELECT pg_sleep(30)")
    assert await count(database, "acme") == 2


async def test_statements_that_go_out_together_are_part_of_a_joined_transaction(database):
    with caller(tenant="acme"), pytest.raises(RuntimeError):
        async with database.joined_transaction():
            async with database.pipeline() as connection:
                await connection.execute(INSERT, ["acme", "1"])
            raise RuntimeError
    assert await count(database, "acme") == 0


async def test_of_connections_lost_while_idle_one_caller_is_told_at_most(database, postgres_url):
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(database.fetch("SELECT pg_sleep(0.05)", tenant="acme"))
    await terminate_backends(postgres_url, "agent")

    with caller(tenant="acme"):
        with pytest.raises(DependencyUnavailable):
            async with database.pipeline() as connection:
                await connection.execute(INSERT, ["acme", "1"])
        for number in range(5):
            async with database.pipeline() as connection:
                await connection.execute(INSERT, ["acme", str(number)])
    assert await count(database, "acme") == 5


async def test_a_connection_lost_at_work_is_a_dependency_that_is_down(database, postgres_url):
    with pytest.raises(DependencyUnavailable):
        async with database.transaction("acme") as connection:
            await terminate_backends(postgres_url, "agent")
            await connection.execute(COUNT)

    assert await count(database, "acme") == 0


async def test_an_unreachable_postgres_is_a_dependency_that_is_down(monkeypatch):
    monkeypatch.setattr("loremesh_kit.postgres._ACQUIRE_SECONDS", 0.3)
    async with open_database(ServiceSettings(database_url="postgresql://agent:x@127.0.0.1:1/x")) as database:
        with pytest.raises(DependencyUnavailable):
            await database.probe()


async def test_a_full_pool_refuses_in_time(database_urls, monkeypatch):
    monkeypatch.setattr("loremesh_kit.postgres._ACQUIRE_SECONDS", 0.2)
    settings = ServiceSettings(database_url=database_urls.plain, database_pool_size=1)
    async with open_database(settings) as database, database.transaction("acme"):
        with pytest.raises(DependencyUnavailable):
            await database.fetch(COUNT, tenant="acme")


async def test_a_cancelled_caller_gives_its_connection_back(database_urls):
    settings = ServiceSettings(database_url=database_urls.plain, database_pool_size=1)
    async with open_database(settings) as database:
        await database.ready()
        slow = asyncio.create_task(database.fetch("SELECT pg_sleep(30)", tenant="acme"))
        await asyncio.sleep(0.2)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await count(database, "acme") == 0


async def test_a_connection_is_used_again_however_it_was_used(database_urls):
    settings = ServiceSettings(database_url=database_urls.plain, database_pool_size=1)
    pid, pids = "SELECT pg_backend_pid() AS pid", set()
    async with open_database(settings) as database:
        with caller(tenant="acme"):
            for _ in range(2):
                pids.add((await database.fetch(pid))[0]["pid"])
                for way in (database.transaction, database.pipeline):
                    async with way() as connection:
                        pids.add((await (await connection.execute(pid)).fetchone())["pid"])
    assert len(pids) == 1


async def test_what_goes_together_is_not_waited_for(database):
    async with database.transaction("acme") as connection:
        assert not connection.in_pipeline
        async with together(connection):
            assert connection.in_pipeline
            async with together(connection):
                await connection.execute(INSERT, ["acme", "1"])
            assert connection.in_pipeline
        assert not connection.in_pipeline
    assert await count(database, "acme") == 1


async def test_a_connection_that_was_left_in_a_pipeline_is_used_by_nobody_else(database_urls):
    settings = ServiceSettings(database_url=database_urls.plain, database_pool_size=1)
    async with open_database(settings) as database:
        left = AsyncExitStack()
        with pytest.raises(RuntimeError):
            async with database.transaction("acme") as connection:
                await left.enter_async_context(connection.pipeline())
                raise RuntimeError
        async with database.transaction("acme") as connection:
            await connection.execute(INSERT, ["acme", "1"])
        assert await count(database, "acme") == 1
        with suppress(psycopg.Error):
            await left.aclose()


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05])
async def test_a_caller_cancelled_in_a_pipeline_leaves_a_connection_that_works(database_urls, seconds):
    settings = ServiceSettings(database_url=database_urls.plain, database_pool_size=1)

    async def slowly():
        with caller(tenant="acme"):
            async with database.pipeline() as connection:
                for _ in range(3):
                    await connection.execute("SELECT pg_sleep(0.01)")

    async with open_database(settings) as database:
        await database.ready()
        for _ in range(5):
            slow = asyncio.create_task(slowly())
            await asyncio.sleep(seconds)
            # And once more while it tidies up.
            for _ in range(3):
                slow.cancel()
                await asyncio.sleep(0.001)
            await asyncio.wait([slow])
            async with database.transaction("acme") as connection:
                await connection.execute("SELECT 1")


async def test_a_caller_cancelled_as_a_pipeline_begins_leaves_a_connection_that_works(database_urls, monkeypatch):
    settings = ServiceSettings(database_url=database_urls.plain, database_pool_size=1)
    async with open_database(settings) as database:
        await database.ready()
        async with database.transaction("acme") as connection:
            # The loop was busy for long: psycopg lets others go first once it is in its pipeline.
            monkeypatch.setattr(psycopg.waiting, "_last_yield", 0.0)
            entering = asyncio.create_task(connection.pipeline().__aenter__())
            await asyncio.sleep(0)
            entering.cancel()
            with suppress(asyncio.CancelledError):
                await entering
            assert connection.in_pipeline
        assert await count(database, "acme") == 0
