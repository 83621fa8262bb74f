"""What is wrong with a server that brings tools."""

from loremesh_kit.errors import Code, InvalidField, Missing, ServiceError


class ToolServerNotFound(Missing):
    """The caller has no tool server of this id."""

    reason = "TOOL_SERVER_NOT_FOUND"
    what, key, type = "tool server", "tool_server_id", "loremesh.agent.v1.ToolServer"


class ToolServerExists(ServiceError):
    """A tool server has this id already."""

    code = Code.ALREADY_EXISTS
    reason = "TOOL_SERVER_EXISTS"

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(
            f"There is a tool server {tool_server_id!r} already.", metadata={"tool_server_id": tool_server_id}
        )


class ToolServerInvalid(InvalidField):
    """The tool server's description is wrong."""

    reason = "TOOL_SERVER_INVALID"

    def __init__(self, problem: str, *, field: str = "tool_server") -> None:
        super().__init__(problem, metadata={"problem": problem}, field=field)


class ToolServerUnavailable(ServiceError):
    """The tool server does not answer, or not as it should."""

    code = Code.UNAVAILABLE
    reason = "TOOL_SERVER_UNAVAILABLE"

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(
            f"The tool server {tool_server_id!r} does not answer as it should.",
            metadata={"tool_server_id": tool_server_id},
        )


class ToolServerReadOnly(ServiceError):
    """The tool server stands in the operator's file."""

    code = Code.FAILED_PRECONDITION
    reason = "TOOL_SERVER_READ_ONLY"

    def __init__(self, tool_server_id: str) -> None:
        super().__init__(
            f"The tool server {tool_server_id!r} stands in the operator's file.",
            metadata={"tool_server_id": tool_server_id},
        )


class AddressForbidden(InvalidField):
    """The address is not one that may be called."""

    reason = "ADDRESS_FORBIDDEN"

    def __init__(self, host: str) -> None:
        super().__init__(f"{host!r} must not be called.", metadata={"host": host}, field="address")
