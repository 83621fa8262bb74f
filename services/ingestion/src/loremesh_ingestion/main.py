"""Connects the ingestion service to what it needs, and runs it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.resources import files

from loremesh_kit import events
from loremesh_kit.channel import open_channel
from loremesh_kit.postgres import open_database
from loremesh_kit.server import Wired
from loremesh_kit.server import main as serve_main

from loremesh_ingestion.adapters.embedding import GrpcEmbedder
from loremesh_ingestion.adapters.parser import ProcessParser
from loremesh_ingestion.adapters.recent_blobs import RecentBlobs
from loremesh_ingestion.adapters.retrieval import GrpcSearchIndex
from loremesh_ingestion.adapters.s3 import S3BlobStore, open_blob_store
from loremesh_ingestion.settings import Settings
from loremesh_ingestion.wiring import SERVICE, Outside, assemble

MIGRATIONS = files("loremesh_ingestion") / "migrations"

_RECENT_OBJECT_BYTES = 256 * 1024
_RECENT_BYTES = 32 * 1024 * 1024


@asynccontextmanager
async def wire(settings: Settings) -> AsyncIterator[Wired]:
    """The service, with connections to all that it needs."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        bus = await stack.enter_async_context(events.connect(settings.nats_url, service=SERVICE))
        store = await stack.enter_async_context(_blob_store(settings))
        embedding = await stack.enter_async_context(open_channel(settings.embedding_target))
        retrieval = await stack.enter_async_context(open_channel(settings.retrieval_target))
        outside = Outside(
            database=database,
            bus=bus,
            blobs=RecentBlobs(store=store, object_bytes=_RECENT_OBJECT_BYTES, total_bytes=_RECENT_BYTES),
            parser=await stack.enter_async_context(_parser(settings)),
            embedder=GrpcEmbedder(channel=embedding),
            index=GrpcSearchIndex(channel=retrieval),
            probes={"postgres": database.probe, "nats": bus.probe, "s3": store.probe},
        )
        yield assemble(outside, settings=settings)


def _blob_store(settings: Settings) -> AbstractAsyncContextManager[S3BlobStore]:
    return open_blob_store(
        endpoint_url=settings.s3_endpoint_url,
        public_endpoint_url=settings.s3_public_endpoint_url,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        region=settings.s3_region,
        bucket=settings.s3_bucket,
    )


def _parser(settings: Settings) -> ProcessParser:
    return ProcessParser(
        workers=settings.parser_processes,
        memory_bytes=settings.parser_memory_bytes,
        cpu_seconds=settings.parser_cpu_seconds,
        wall_seconds=settings.parser_wall_seconds,
    )


def main() -> None:
    """Serve, work, migrate or ask for health, as the command line says."""
    serve_main(service=SERVICE, settings=Settings, wire=wire, migrations=MIGRATIONS)


if __name__ == "__main__":
    main()
