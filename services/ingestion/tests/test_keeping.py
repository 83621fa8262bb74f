import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1 import vector_store_pb2
from loremesh_ingestion.adapters.memory import MemoryEmbedder, MemorySearchIndex
from loremesh_ingestion.domain.version import BATCH_SIZE
from loremesh_kit.errors import DependencyUnavailable

pytestmark = pytest.mark.steelthread

COUNT = 2 * BATCH_SIZE + 6


def paragraphs(count: int) -> list[str]:
    return [f"Paragraph {number}." for number in range(count)]


def text(parts: list[str]) -> bytes:
    return "\n\n".join(parts).encode()


def counted(changes: pb.ChunkChanges) -> tuple[int, int, int]:
    return changes.embedded, changes.kept, changes.removed


async def replaced(service, document: pb.Document, content: bytes, **given) -> pb.Document:
    service.embedder.calls.clear()
    await service.upload(content, document_id=document.id, **given)
    ready = await service.settled(document)
    assert ready.state == pb.DOCUMENT_STATE_READY
    events = await service.watch(document.id)
    assert events[-1].ready.changes == ready.changes
    return ready


def embedded(service) -> list[str]:
    return [each for call in service.embedder.calls for each in call]


@pytest.mark.parametrize("count", [5, COUNT])
async def test_only_what_changed_is_embedded(service, count):
    parts = paragraphs(count)
    document = await service.settled(await service.upload(text(parts)))
    assert counted(document.changes) == (count, 0, 0)
    parts[3:4] = ["Other.", "New."]
    ready = await replaced(service, document, text(["First.", *parts]))
    assert sorted(embedded(service)) == ["First.", "New.", "Other."]
    assert counted(ready.changes) == (3, count - 1, 1)
    for held, entry in service.index.chunks.values():
        if held.version == 2:
            (made,) = await MemoryEmbedder().embed([entry.chunk.text], model="memory")
            assert entry.vector == made


@pytest.mark.parametrize("count", [5, COUNT])
async def test_indexing_as_it_was_embeds_nothing(service, count):
    document = await service.settled(await service.upload(text(paragraphs(count)), title="T"))
    service.embedder.calls.clear()
    await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=document.id))
    again = await service.settled(document)
    assert embedded(service) == []
    assert counted(again.changes) == (0, count, 0)


@pytest.mark.parametrize("count", [5, COUNT])
async def test_another_title_is_another_text_to_the_model(service, count):
    document = await service.settled(await service.upload(text(paragraphs(count)), title="old"))
    ready = await replaced(service, document, text(paragraphs(count - 1)), title="new")
    assert len(embedded(service)) == count - 1
    assert counted(ready.changes) == (count - 1, 0, count)


async def test_a_title_updated_since_does_not_hide_what_was_embedded(service):
    document = await service.settled(await service.upload(text(paragraphs(3)), title="old"))
    changed = pb.Document(id=document.id, title="new")
    await service.documents.UpdateDocument(pb.UpdateDocumentRequest(document=changed))
    await service.idle()
    ready = await replaced(service, document, text(paragraphs(4)))
    assert counted(ready.changes) == (4, 0, 3)


async def test_what_comes_twice_is_kept_twice_and_counted_as_often(service):
    document = await service.settled(await service.upload(b"Same.\n\nSame.\n\nGone."))
    ready = await replaced(service, document, b"Same.\n\nSame.\n\nSame.")
    assert counted(ready.changes) == (0, 3, 1)


@pytest.mark.parametrize("count", [5, COUNT])
async def test_a_vector_the_index_has_lost_is_made_anew(service, count):
    document = await service.settled(await service.upload(text(paragraphs(count))))
    lost = next(key for key, (_, entry) in service.index.chunks.items() if entry.chunk.index == 2)
    del service.index.chunks[lost]
    ready = await replaced(service, document, text([*paragraphs(count), "New."]))
    assert sorted(embedded(service)) == ["New.", "Paragraph 2."]
    assert counted(ready.changes) == (2, count - 1, 0)


class FlakyIndex(MemorySearchIndex):
    """Fails some times when asked for vectors, and when written to."""

    failures = 0

    async def vectors(self, document, chunk_ids):
        self._perhaps()
        return await super().vectors(document, chunk_ids)

    async def upsert(self, document, entries):
        await super().upsert(document, entries)
        self._perhaps()

    def _perhaps(self):
        if self.failures:
            self.failures -= 1
            raise DependencyUnavailable("retrieval", retry_after=0.0)


@pytest.mark.parametrize("count", [5, COUNT])
async def test_attempts_that_failed_count_for_nothing(start_service, count):
    async with start_service(index=FlakyIndex()) as service:
        document = await service.settled(await service.upload(text(paragraphs(count))))
        service.index.failures = 4
        await service.upload(text([*paragraphs(count - 1), "New."]), document_id=document.id)
        ready = await service.settled(document, impatient=True)
        assert counted(ready.changes) == (1, count - 1, 1)


async def test_another_strategy_keeps_what_is_cut_the_same(service):
    document = await service.settled(await service.upload(text(paragraphs(3))))
    strategy = vector_store_pb2.ChunkingStrategy(max_tokens=64)
    ready = await replaced(service, document, text(paragraphs(3)), chunking_strategy=strategy)
    assert counted(ready.changes) == (0, 3, 0)
