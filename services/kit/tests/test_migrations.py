import asyncio

import psycopg
import pytest
from loremesh_kit.migrations import MigrationError, migrate, read
from loremesh_kit.testing import fresh_database

pytestmark = pytest.mark.steelthread

TABLE = (
    "CREATE TABLE {name} (tenant text NOT NULL, id text, PRIMARY KEY (tenant, id)); SELECT isolate_tenants('{name}');"
)


def write(folder, **migrations: str):
    for name, sql in migrations.items():
        (folder / f"{name[1:]}.sql").write_text(sql)
    return folder


async def tables(url):
    async with await psycopg.AsyncConnection.connect(url) as connection:
        rows = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'agent'")
        return {name for (name,) in await rows.fetchall()}


async def run(urls, folder):
    await migrate(urls.owner, schema="agent", role="agent", directory=folder)


async def test_the_kits_files_come_first_then_the_services_each_once(database_urls, tmp_path):
    write(tmp_path, _0001_things=TABLE.format(name="things"))
    await run(database_urls, tmp_path)
    write(tmp_path, _0002_more=TABLE.format(name="more"))
    await run(database_urls, tmp_path)
    await run(database_urls, tmp_path)

    assert {"jobs", "outbox", "inbox", "dead_letters", "events", "idempotency", "things", "more"} <= await tables(
        database_urls.owner
    )


async def test_the_plain_role_may_use_the_tables_and_not_change_them(database_urls, tmp_path):
    await run(database_urls, write(tmp_path, _0001_things=TABLE.format(name="things")))

    async with await psycopg.AsyncConnection.connect(database_urls.plain) as connection:
        await connection.execute("SELECT set_config('app.tenant', 'acme', true)")
        await connection.execute("INSERT INTO things VALUES ('acme', '1')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("ALTER TABLE things DISABLE ROW LEVEL SECURITY")


async def test_a_row_is_found_by_its_whole_key_before_there_are_statistics(database_urls, tmp_path):
    # Of a wide table the planner expects few rows.
    columns = ", ".join(f"ADD COLUMN shelf{number} text" for number in range(20))
    index = "CREATE INDEX things_by_shelf ON things (tenant, shelf0)"
    table = f"{TABLE.format(name='things')} ALTER TABLE things {columns}; {index}"
    await run(database_urls, write(tmp_path, _0001_things=table))

    async with await psycopg.AsyncConnection.connect(database_urls.plain) as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute("PREPARE one (text, text) AS SELECT * FROM things WHERE tenant = $1 AND id = $2")
        plan = await (await connection.execute("EXPLAIN EXECUTE one ('acme', '1')")).fetchall()
    assert any("things_pkey" in line for (line,) in plan)


async def test_many_at_once_apply_each_file_once(postgres_url, tmp_path):
    write(tmp_path, _0001_things="SELECT pg_sleep(0.1); " + TABLE.format(name="things"))
    async with fresh_database(postgres_url, schema="agent") as urls, asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(run(urls, tmp_path))


async def test_an_applied_file_may_not_change(database_urls, tmp_path):
    await run(database_urls, write(tmp_path, _0001_things=TABLE.format(name="things")))
    write(tmp_path, _0001_things=TABLE.format(name="other"))

    with pytest.raises(MigrationError, match="0001_things was changed"):
        await run(database_urls, tmp_path)
    assert "other" not in await tables(database_urls.owner)


async def test_a_database_ahead_of_the_code_is_let_be(database_urls, tmp_path):
    ahead, behind = tmp_path / "ahead", tmp_path / "behind"
    ahead.mkdir()
    behind.mkdir()
    write(behind, _0001_things=TABLE.format(name="things"))
    await run(
        database_urls, write(ahead, _0001_things=TABLE.format(name="things"), _0002_more=TABLE.format(name="more"))
    )

    await run(database_urls, behind)


async def test_a_broken_file_leaves_nothing_of_itself(database_urls, tmp_path):
    write(tmp_path, _0001_things=TABLE.format(name="things") + " SELECT 1/0;")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await run(database_urls, tmp_path)
    assert "things" not in await tables(database_urls.owner)


async def test_a_table_without_isolation_is_refused(database_urls, tmp_path):
    write(tmp_path, _0001_open="CREATE TABLE open_to_all (id text); ALTER TABLE open_to_all ENABLE ROW LEVEL SECURITY")

    with pytest.raises(MigrationError, match="open_to_all"):
        await run(database_urls, tmp_path)


@pytest.mark.parametrize("names", [("0002_b.sql",), ("0001_a.sql", "0001_b.sql"), ("1_a.sql",), ("0001_A.sql",)])
def test_files_are_numbered_without_gap_or_double(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(MigrationError):
        read("agent", tmp_path)


async def test_an_absent_postgres_is_waited_for_and_not_for_ever(tmp_path):
    with pytest.raises(TimeoutError):
        await migrate("postgresql://a:b@127.0.0.1:1/x", schema="agent", role="agent", directory=tmp_path, patience=0.5)
