"""MemoryService: messages in, use cases, messages out."""

from loremesh.agent.v1 import memory_pb2 as pb
from loremesh.agent.v1.memory_pb2_grpc import MemoryServiceServicer
from loremesh_kit import pages
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_agent import memory_protos as protos
from loremesh_agent.calls import Context
from loremesh_agent.engine.memories import Memories

_DEFAULT_PAGE = 50
_DEFAULT_TOP_K = 5


class MemoryServicer(MemoryServiceServicer):
    """Keeps what agents learned."""

    def __init__(self, *, engine: Memories) -> None:
        self._engine = engine

    async def CreateMemory(self, request: pb.CreateMemoryRequest, context: Context) -> pb.CreateMemoryResponse:  # noqa: N802
        """Remember a fact."""
        del context
        ttl = protos.read_ttl(request.ttl) if request.HasField("ttl") else None
        kept, is_new = await self._engine.create(protos.read_memory(request.memory), ttl=ttl)
        return pb.CreateMemoryResponse(memory=protos.memory(kept), created=is_new)

    async def GetMemory(self, request: pb.GetMemoryRequest, context: Context) -> pb.Memory:  # noqa: N802
        """Get one."""
        del context
        return protos.memory(await self._engine.get(clean(request.memory_id)))

    async def ListMemories(self, request: pb.ListMemoriesRequest, context: Context) -> pb.ListMemoriesResponse:  # noqa: N802
        """List those of a scope, newest first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        found = await self._engine.page(
            protos.read_scope(request.scope) if request.HasField("scope") else None,
            kind=protos.read_kind(request.kind),
            show_past=request.show_past,
            after=pages.decode_token(request.page_token, query=request),
            limit=size + 1,
        )
        response = pb.ListMemoriesResponse(memories=map(protos.memory, found[:size]))
        if len(found) > size:
            last = Position(sort_key=found[size - 1].create_time.isoformat(), id=found[size - 1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def SearchMemories(  # noqa: N802
        self, request: pb.SearchMemoriesRequest, context: Context
    ) -> pb.SearchMemoriesResponse:
        """Find what is known."""
        del context
        found = await self._engine.search(
            request.query,
            scope=protos.read_scope(request.scope),
            top_k=request.top_k or _DEFAULT_TOP_K,
            kinds=[kind for kind in map(protos.read_kind, request.kinds) if kind],
            words_only=request.words_only,
        )
        results = [pb.FoundMemory(memory=protos.memory(each.memory), score=each.score) for each in found]
        return pb.SearchMemoriesResponse(results=results)

    async def ExplainMemory(self, request: pb.ExplainMemoryRequest, context: Context) -> pb.ExplainMemoryResponse:  # noqa: N802
        """Say where one comes from."""
        del context
        return protos.explained(await self._engine.explain(clean(request.memory_id)))

    async def ForgetMemories(self, request: pb.ForgetMemoriesRequest, context: Context) -> pb.MemoryReceipt:  # noqa: N802
        """Forget one, or all of a scope."""
        del context
        scope = protos.read_scope(request.scope) if request.HasField("scope") else None
        return protos.receipt(await self._engine.forget(memory_id=clean(request.memory_id), scope=scope))

    async def GetMemoryReceipt(self, request: pb.GetMemoryReceiptRequest, context: Context) -> pb.MemoryReceipt:  # noqa: N802
        """Get what became of a forgetting."""
        del context
        return protos.receipt(await self._engine.receipt(clean(request.receipt_id)))
