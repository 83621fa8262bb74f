from pathlib import Path

import pytest
from loremesh_ingestion.main import MIGRATIONS
from loremesh_ingestion.settings import Settings
from loremesh_ingestion.wiring import SERVICE
from loremesh_kit.migrations import migrate
from loremesh_kit.postgres import open_database
from loremesh_kit.testing import caller, fresh_database

pytestmark = pytest.mark.steelthread


@pytest.fixture
def before_generations(tmp_path: Path) -> Path:
    for path in MIGRATIONS.iterdir():
        if path.name < "0004":
            (tmp_path / path.name).write_text(path.read_text())
    return tmp_path


async def test_what_was_there_before_generations_is_the_first_one(postgres_url, before_generations):
    async with fresh_database(postgres_url, schema=SERVICE, migrations=before_generations) as urls:
        async with open_database(Settings(database_url=urls.plain)) as database:
            for tenant in ("acme", "another"):
                with caller(tenant=tenant):
                    await database.fetch(
                        "INSERT INTO vector_stores (id, display_name, description, embedding_model, chunking_strategy,"
                        " attributes) VALUES ('s', '', '', 'm', '{\"kind\": \"auto\"}', '{}')"
                    )
                    await database.fetch(
                        "INSERT INTO documents (id, vector_store_id, title, title_given, filename, media_type,"
                        " size_bytes, sha256, attributes, attribute_times, state)"
                        " VALUES ('d', 's', '', false, '', '', 1, '', '{}', '{}', 'UPLOADED')"
                    )
                    await database.fetch(
                        "INSERT INTO document_versions (document_id, version, object_key, embedding_model,"
                        " chunking_strategy) VALUES ('d', 1, 'k', 'm', '{}')"
                    )
        await migrate(urls.owner, schema=SERVICE, role=SERVICE, directory=MIGRATIONS)
        async with open_database(Settings(database_url=urls.plain)) as database:
            for tenant in ("acme", "another"):
                with caller(tenant=tenant):
                    documents = await database.fetch(
                        "SELECT documents.id, key, documents.generation, store.generation AS live, line.embedding_model"
                        " FROM documents JOIN vector_stores AS store ON store.id = vector_store_id"
                        " JOIN index_generations AS line USING (vector_store_id)"
                        " JOIN document_versions AS version ON version.document_id = key"
                    )
                    expected = {"id": "d", "key": "d", "generation": 1, "live": 1, "embedding_model": "m"}
                    assert documents == [expected]
            with caller(tenant="nobody"):
                assert await database.fetch("SELECT 1 FROM documents") == []
