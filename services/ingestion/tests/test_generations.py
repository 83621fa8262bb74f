import asyncio
from collections.abc import Sequence

import pytest
from loremesh.ingestion.v1 import document_pb2, vector_store_pb2
from loremesh.ingestion.v1 import generation_pb2 as pb
from loremesh_ingestion.adapters.memory import MemoryEmbedder
from loremesh_ingestion.domain.version import BATCH_SIZE
from loremesh_ingestion.engine import building
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread

STORE = "default"
LONG = "\n\n".join(f"Paragraph {number}." for number in range(BATCH_SIZE + 3)).encode()
BUILDING, COMPLETE, LIVE = (
    pb.INDEX_GENERATION_STATE_BUILDING,
    pb.INDEX_GENERATION_STATE_COMPLETE,
    pb.INDEX_GENERATION_STATE_LIVE,
)


class GatedEmbedder(MemoryEmbedder):
    """Holds back some models until its gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.held = {"other"}
        self.open = asyncio.Event()
        self.waiting = 0
        self.texts: list[str] = []

    async def embed(self, texts: Sequence[str], *, model: str):
        self.texts += texts
        if model in self.held:
            self.waiting += 1
            await self.open.wait()
        return await super().embed(texts, model=model)


async def create(service, **given) -> pb.IndexGeneration:
    request = pb.CreateIndexGenerationRequest(**{"vector_store_id": STORE, "embedding_model": "other", **given})
    return await service.generations.CreateIndexGeneration(request)


async def get(service, generation: int) -> pb.IndexGeneration:
    request = pb.GetIndexGenerationRequest(vector_store_id=STORE, generation=generation)
    return await service.generations.GetIndexGeneration(request)


async def activate(service, generation: int) -> pb.IndexGeneration:
    request = pb.ActivateIndexGenerationRequest(vector_store_id=STORE, generation=generation)
    return await service.generations.ActivateIndexGeneration(request)


async def drop(service, generation: int) -> None:
    request = pb.DeleteIndexGenerationRequest(vector_store_id=STORE, generation=generation)
    await service.generations.DeleteIndexGeneration(request)


async def complete(service, generation: int) -> pb.IndexGeneration:
    async def is_complete() -> pb.IndexGeneration | None:
        found = await get(service, generation)
        return found if found.state == COMPLETE else None

    return await service.eventually(is_complete)


async def live_store(service) -> vector_store_pb2.VectorStore:
    return await service.stores.GetVectorStore(vector_store_pb2.GetVectorStoreRequest(vector_store_id=STORE))


async def listed(service) -> list[str]:
    response = await service.documents.ListDocuments(document_pb2.ListDocumentsRequest())
    return [document.id for document in response.documents]


def models(service, generation: int) -> set[str]:
    return {held.embedding_model for held, _ in service.index.chunks.values() if held.generation == generation}


async def test_a_store_begins_with_one_generation(service):
    found = await service.generations.ListIndexGenerations(pb.ListIndexGenerationsRequest(vector_store_id=STORE))
    (only,) = found.generations
    assert (only.generation, only.state, only.embedding_model) == (1, LIVE, "memory")
    assert only.HasField("activate_time")
    assert (await live_store(service)).generation == 1


async def test_the_next_generation_is_built_beside_switched_and_switched_back(service):
    short = await service.settled(await service.upload(b"One.\n\nTwo.", title="T"))
    long = await service.settled(await service.upload(LONG))
    strategy = vector_store_pb2.ChunkingStrategy(max_tokens=64)
    begun = await create(service, chunking_strategy=strategy)
    assert (begun.generation, begun.embedding_model, begun.documents_total) == (2, "other", 2)
    assert begun.chunking_strategy.max_tokens == 64

    ready = await complete(service, 2)
    assert (ready.documents_ready, ready.documents_failed, ready.documents_total) == (2, 0, 2)
    assert not ready.HasField("activate_time")
    # Until then nobody has seen anything of it.
    assert await listed(service) == [long.id, short.id]
    assert (await service.get(long.id)).etag == long.etag
    assert [each.WhichOneof("payload") for each in await service.watch(long.id)].count("ready") == 1
    assert (await live_store(service)).document_count == 2
    for document in (short, long):
        held = service.index.held(document.id)
        assert held == service.index.held(document.id, generation=2)
        assert len(held) == document.chunk_count
    assert (models(service, 1), models(service, 2)) == ({"memory"}, {"other"})

    assert (await activate(service, 2)).state == LIVE
    store = await live_store(service)
    assert (store.generation, store.embedding_model, store.chunking_strategy.max_tokens) == (2, "other", 64)
    assert store.document_count == 2
    assert await listed(service) == [long.id, short.id]
    seen = await service.get(short.id)
    assert (seen.id, seen.title, seen.state, seen.version) == (short.id, "T", short.state, 1)
    chunks = await service.documents.ListChunks(document_pb2.ListChunksRequest(document_id=short.id))
    entries = {id_ for (_, id_), (held, _) in service.index.chunks.items() if held.generation == 2}
    assert {chunk.id for chunk in chunks.chunks} <= entries

    assert (await get(service, 1)).state == COMPLETE
    assert (await activate(service, 1)).state == LIVE
    assert (await live_store(service)).embedding_model == "memory"
    assert await listed(service) == [long.id, short.id]


async def test_a_generation_that_is_not_complete_cannot_be_activated(start_service, refused):
    embedder = GatedEmbedder()
    async with start_service(embedder=embedder) as service:
        await service.settled(await service.upload(b"One."))
        await create(service)
        assert (await get(service, 2)).state == BUILDING
        async with refused("GENERATION_STATE_UNSUITABLE", "FAILED_PRECONDITION"):
            await activate(service, 2)
        assert (await live_store(service)).generation == 1
        embedder.open.set()
        await complete(service, 2)
        await activate(service, 2)


async def test_every_generation_takes_in_uploads_replacements_and_updates(service):
    old = await service.settled(await service.upload(b"One.\n\nTwo.", title="old"))
    await create(service)
    await complete(service, 2)
    new = await service.settled(await service.upload(b"New."))
    again = await service.upload(b"New.")
    assert (again.id, again.upload_outcome) == (new.id, document_pb2.UPLOAD_OUTCOME_UNCHANGED)
    await service.upload(b"One.\n\nThree.", document_id=old.id)
    await service.settled(old)
    changed = document_pb2.Document(id=old.id, title="new")
    await service.documents.UpdateDocument(document_pb2.UpdateDocumentRequest(document=changed))
    await service.idle()
    for generation in (1, 2):
        assert service.index.held(new.id, generation=generation) == [(1, 0)]
        assert service.index.held(old.id, generation=generation) == [(2, 0), (2, 1)]
    held = [held for held, _ in service.index.chunks.values() if held.document_id == old.id]
    assert {each.title for each in held} == {"new"}
    assert sorted(service.blobs.objects.values()) == [b"New.", b"One.\n\nThree."]
    assert (await activate(service, 2)).documents_ready == 2
    # One chunk of the two kept its vector in either.
    ready = await service.settled(await service.upload(b"One.\n\nFour.", document_id=old.id))
    assert (ready.version, ready.changes.embedded, ready.changes.kept, ready.title) == (3, 2, 0, "new")


async def test_a_deleted_document_is_gone_from_every_generation(service):
    document = await service.settled(await service.upload(b"One.\n\nTwo."))
    kept = await service.settled(await service.upload(b"Kept."))
    await create(service)
    await complete(service, 2)
    await service.documents.DeleteDocument(document_pb2.DeleteDocumentRequest(document_id=document.id))
    await service.idle()
    assert {held.document_id for held, _ in service.index.chunks.values()} == {kept.id}
    assert list(service.blobs.objects.values()) == [b"Kept."]
    rows = await service.rows("SELECT id FROM documents")
    assert [row["id"] for row in rows] == [kept.id, kept.id]
    receipts = await service.rows("SELECT index_chunks, chunks FROM deletions WHERE rows_time IS NOT NULL")
    assert receipts == [{"index_chunks": 4, "chunks": 4}]


@pytest.mark.parametrize("last", [1, 2])
async def test_a_deleted_generation_leaves_the_documents_and_nothing_of_itself(service, refused, last):
    document = await service.settled(await service.upload(b"One.\n\nTwo."))
    await create(service)
    await complete(service, 2)
    await activate(service, last)
    async with refused("GENERATION_STATE_UNSUITABLE", "FAILED_PRECONDITION"):
        await drop(service, last)
    await drop(service, 3 - last)
    async with refused("GENERATION_NOT_FOUND", "NOT_FOUND"):
        await get(service, 3 - last)
    await service.idle()
    assert {held.generation for held, _ in service.index.chunks.values()} == {last}
    assert len(await service.rows("SELECT 1 FROM documents")) == 1
    assert list(service.blobs.objects.values()) == [b"One.\n\nTwo."]
    # What is left is a store like any other.
    await service.settled(await service.upload(b"One.\n\nThree.", document_id=document.id))
    added = await service.settled(await service.upload(b"Added."))
    await service.idle()
    assert service.index.held(document.id, generation=last) == [(2, 0), (2, 1)]
    assert service.index.held(added.id, generation=last) == [(1, 0)]
    assert await listed(service) == [added.id, document.id]
    # A number is given once.
    assert (await create(service)).generation == 3


async def test_a_generation_deleted_while_it_is_built_takes_back_what_it_wrote(start_service):
    embedder = GatedEmbedder()
    async with start_service(embedder=embedder) as service:
        document = await service.settled(await service.upload(b"One."))
        long = await service.settled(await service.upload(LONG))
        await create(service)

        async def under_way() -> bool:
            return embedder.waiting == 3  # the short document, and the two batches of the long one

        await service.eventually(under_way)
        await drop(service, 2)

        async def dropped() -> bool:
            return not await service.rows("SELECT 1 FROM documents WHERE generation = 2")

        await service.eventually(dropped)
        embedder.open.set()
        await service.idle()
        assert {held.generation for held, _ in service.index.chunks.values()} == {1}
        assert len(service.blobs.objects) == 2
        assert await listed(service) == [long.id, document.id]


async def test_what_was_written_after_a_generation_was_removed_is_looked_for_once_more(service):
    await service.settled(await service.upload(b"One."))
    await create(service)
    await complete(service, 2)
    in_the_second = [(place, held) for place, held in service.index.chunks.items() if held[0].generation == 2]
    await drop(service, 2)
    await service.idle()
    # As by a worker that was frozen amid its write, and died after it.
    service.index.chunks.update(in_the_second)
    await service.rows("UPDATE jobs SET due_at = now() WHERE kind = 'drop_generation' AND state = 'QUEUED'")
    await service.idle()
    assert {held.generation for held, _ in service.index.chunks.values()} == {1}
    assert await service.rows("SELECT 1 FROM jobs WHERE state = 'QUEUED'") == []


async def test_what_cannot_be_had_is_refused(service, refused):
    async with refused("VECTOR_STORE_NOT_FOUND", "NOT_FOUND"):
        await create(service, vector_store_id="never-made")
    async with refused("EMBEDDING_MODEL_UNKNOWN", field="embedding_model"):
        await create(service, embedding_model="word2vec")
    for call in (get, activate, drop):
        async with refused("GENERATION_NOT_FOUND", "NOT_FOUND"):
            await call(service, 2)
    await create(service)
    async with refused("GENERATION_ALREADY_EXISTS", "FAILED_PRECONDITION"):
        await create(service)
    assert (await activate(service, 1)).state == LIVE
    with caller(tenant="intruder"):
        async with refused("GENERATION_NOT_FOUND", "NOT_FOUND"):
            await get(service, 2)


async def test_what_nobody_can_read_does_not_keep_a_generation_from_going_live(service):
    bad = await service.settled(await service.upload(b"\xff\xfe"))
    await service.settled(await service.upload(b"One."))
    await create(service)
    await service.idle()
    found = await get(service, 2)
    assert (found.state, found.documents_ready, found.documents_failed) == (COMPLETE, 1, 1)
    await activate(service, 2)
    assert (await service.get(bad.id)).failure.reason == "DOCUMENT_CORRUPT"


async def test_a_document_on_its_way_while_it_is_switched_has_one_end_in_its_log(start_service):
    """It is READY in the next generation first; who watches it hears so at the switch."""
    embedder = GatedEmbedder()
    embedder.held = {"memory"}
    async with start_service(embedder=embedder) as service:
        embedder.open.set()
        await service.settled(await service.upload(b"One."))
        await create(service)
        await complete(service, 2)
        embedder.open.clear()
        late = await service.upload(b"Late.")
        ready = "SELECT 1 FROM documents WHERE id = %s AND state = 'READY'"
        await service.eventually(lambda: service.rows(ready, late.id))
        assert (await service.get(late.id)).state != document_pb2.DOCUMENT_STATE_READY
        watching = asyncio.ensure_future(service.watch(late.id))
        await asyncio.sleep(0.1)
        await activate(service, 2)
        events = await watching
        assert events[-1].WhichOneof("payload") == "ready"
        assert (await service.get(late.id)).state == document_pb2.DOCUMENT_STATE_READY
        embedder.open.set()
        await service.idle()
        told = [event.WhichOneof("payload") for event in await service.watch(late.id)]
        assert told.count("ready") == 1


async def test_a_switch_takes_no_document_back_to_an_older_version(start_service, refused):
    """The live generation has its second version and works on the third, the other one is still at the first."""
    embedder = GatedEmbedder()
    async with start_service(embedder=embedder) as service:
        embedder.open.set()
        document = await service.settled(await service.upload(b"One."))
        await create(service)
        await complete(service, 2)
        embedder.open.clear()
        await service.upload(b"Two.", document_id=document.id)
        assert (await service.settled(document)).version == 2
        embedder.held.add("memory")
        await service.upload(b"Three.", document_id=document.id)
        async with refused("GENERATION_STATE_UNSUITABLE", "FAILED_PRECONDITION"):
            await activate(service, 2)
        assert (await service.get(document.id)).version == 2
        embedder.open.set()
        await complete(service, 2)
        await activate(service, 2)
        assert (await service.get(document.id)).version == 3


async def test_uploads_and_replacements_during_the_building_are_in_it(service):
    documents = [await service.settled(await service.upload(f"Text {number}.".encode())) for number in range(12)]

    async def change(document: document_pb2.Document, number: int) -> None:
        await service.upload(f"Changed {number}.".encode(), document_id=document.id)
        await service.upload(f"Added {number}.".encode())

    async with asyncio.TaskGroup() as group:
        for number, document in enumerate(documents):
            group.create_task(change(document, number))
            if number == 4:
                group.create_task(create(service))
    await service.idle()
    assert (await get(service, 2)).documents_ready == 24
    contents: dict[int, set[str]] = {1: set(), 2: set()}
    for held, entry in service.index.chunks.values():
        contents[held.generation].add(entry.chunk.text)
    expected = {f"{word} {number}." for word in ("Changed", "Added") for number in range(12)}
    assert contents == {1: expected, 2: expected}
    await activate(service, 2)
    assert len(await listed(service)) == 24
    assert len(service.blobs.objects) == 24


async def test_what_is_uploaded_during_the_building_comes_first(start_service):
    embedder = GatedEmbedder()
    async with start_service(embedder=embedder, settings={"job_concurrency": 1}) as service:
        for number in range(6):
            await service.upload(f"Text {number}.".encode())
        await service.idle()
        await create(service)

        async def building_has_begun() -> bool:
            return embedder.waiting == 1

        await service.eventually(building_has_begun)
        await service.upload(b"New.")
        embedder.open.set()
        await service.idle()
    # The one that was under way, the new one in both generations, and only then the rest.
    assert ["New" in text for text in embedder.texts[6:]] == [False, True, True, *[False] * 5]


async def test_bytes_stay_as_long_as_any_generation_shows_them(start_service):
    embedder = GatedEmbedder()
    async with start_service(embedder=embedder) as service:
        embedder.open.set()
        document = await service.settled(await service.upload(b"Old."))
        await create(service)
        await complete(service, 2)
        embedder.open.clear()
        await service.upload(b"New.", document_id=document.id)
        assert (await service.settled(document)).version == 2
        purged = "SELECT 1 FROM jobs WHERE kind = 'purge' AND state = 'SUCCEEDED'"
        await service.eventually(lambda: service.rows(purged))
        assert service.index.held(document.id, generation=2) == [(1, 0)]
        assert sorted(service.blobs.objects.values()) == [b"New.", b"Old."]
        embedder.open.set()
        await service.idle()
        assert service.index.held(document.id, generation=2) == [(2, 0)]
        assert list(service.blobs.objects.values()) == [b"New."]


async def test_a_large_store_is_built_some_documents_at_a_time(service):
    rows, building.ROWS_AT_ONCE = building.ROWS_AT_ONCE, 5
    try:
        documents = [await service.upload(f"Text {number}.".encode()) for number in range(12)]
        await create(service)
        await service.idle()
    finally:
        building.ROWS_AT_ONCE = rows
    assert (await get(service, 2)).documents_ready == 12
    assert all(service.index.held(document.id, generation=2) for document in documents)
    (jobs,) = await service.rows("SELECT count(*) AS pages FROM jobs WHERE kind = 'build_generation'")
    assert jobs["pages"] == 3


async def test_a_store_goes_with_all_its_generations(service):
    store = vector_store_pb2.VectorStore(id="s")
    await service.stores.CreateVectorStore(vector_store_pb2.CreateVectorStoreRequest(vector_store=store))
    await service.settled(await service.upload(b"One.", vector_store_id="s"))
    await create(service, vector_store_id="s")
    await service.idle()
    request = vector_store_pb2.DeleteVectorStoreRequest(vector_store_id="s", force=True)
    await service.stores.DeleteVectorStore(request)
    await service.idle()
    assert service.index.chunks == {}
    assert service.blobs.objects == {}
    query = "SELECT id FROM documents UNION SELECT vector_store_id FROM index_generations WHERE vector_store_id = 's'"
    assert await service.rows(query) == []


async def test_a_changed_strategy_is_the_live_generation_s(service):
    await create(service, embedding_model="")
    changed = vector_store_pb2.VectorStore(id=STORE, chunking_strategy=vector_store_pb2.ChunkingStrategy(max_tokens=32))
    await service.stores.UpdateVectorStore(vector_store_pb2.UpdateVectorStoreRequest(vector_store=changed))
    assert (await live_store(service)).chunking_strategy.max_tokens == 32
    found = [(await get(service, number)).chunking_strategy.max_tokens for number in (1, 2)]
    assert found == [32, 256]
    await activate(service, 2)
    assert (await live_store(service)).chunking_strategy.max_tokens == 256
