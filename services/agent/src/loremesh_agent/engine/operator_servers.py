"""Tool servers of the operator's file: for all tenants, and changed by nobody else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loremesh_agent.domain.tool_servers import Described, NewToolServer, ToolServer
from loremesh_agent.errors import ToolServerNotFound
from loremesh_agent.ports import ToolServerStore

# No caller's tenant has this form.
OPERATOR = "@operator"
_MOST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedServer:
    """An entry of the file; what was described under one `fingerprint` of it is in force until it changes."""

    server: NewToolServer
    fingerprint: str

    @property
    def key(self) -> str:
        """By which what is known of it is kept."""
        return f"{self.server.id}@{self.fingerprint}"


class OperatorServers:
    """The entries, with what is known of them."""

    def __init__(self, *, named: Sequence[NamedServer], store: ToolServerStore) -> None:
        """`named` are the file's entries."""
        self._named = {each.server.id: each for each in sorted(named, key=lambda each: each.server.id)}
        self._store = store

    def has(self, server_id: str) -> bool:
        """Whether the file has an entry of this id."""
        return server_id in self._named

    async def all(self) -> Sequence[ToolServer]:
        """All of them by id, without tools where they were not asked yet."""
        if not self._named:
            return []
        kept = {each.id: each for each in await self._store.page(after="", limit=_MOST, tenant=OPERATOR)}
        return [_server(each.server, kept.get(each.key)) for each in self._named.values()]

    async def get(self, server_id: str) -> ToolServer:
        """One of them."""
        named = self._named[server_id]
        try:
            return _server(named.server, await self._store.get(named.key, tenant=OPERATOR))
        except ToolServerNotFound:
            return _server(named.server, None)

    async def unknown(self) -> Sequence[NewToolServer]:
        """Those which were not asked for their tools yet."""
        return [each for each in await self.all() if each.check_time is None]

    def of_key(self, key: str) -> str | None:
        """The id of the entry kept so; None where the file has it no more, or otherwise."""
        server_id = key.partition("@")[0]
        return server_id if self.has(server_id) and self._named[server_id].key == key else None

    async def keep(self, server_id: str, tools: tuple[Described, ...]) -> None:
        """Put the tools in force, unless another process was first."""
        named = self._named[server_id]
        # Of the entry itself nothing is kept: the file has it, and its secrets.
        kept = ToolServer(id=named.key, kind=named.server.kind, tools=tools, healthy=True)
        await self._store.introduce(kept, tenant=OPERATOR)


def _server(named: NewToolServer, kept: ToolServer | None) -> ToolServer:
    known = kept or ToolServer(id=named.id, kind=named.kind)
    return replace(
        known,
        id=named.id,
        address=named.address,
        token=named.token,
        default_effect=named.default_effect,
        timeout_seconds=named.timeout_seconds,
        program=named.program,
        create_time=None,
    )
