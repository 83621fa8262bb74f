"""What a model is told of a tool."""

from collections.abc import Mapping

from loremesh_kit.errors import Code, InvalidField, ServiceError


class ToolError(ServiceError):
    """A tool was not called, or failed: the model is told the message."""

    def __init__(
        self, message: str, *, tool: str, metadata: Mapping[str, str] | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, metadata={"tool": tool, **(metadata or {})}, field=field)


class ToolNotFound(ToolError):
    """No tool has this name."""

    code = Code.NOT_FOUND
    reason = "TOOL_NOT_FOUND"

    def __init__(self, tool: str) -> None:
        super().__init__(f"There is no tool {tool!r}.", tool=tool)


class ToolUnknown(InvalidField):
    """An agent is given a tool that there is not."""

    reason = "TOOL_NOT_FOUND"

    def __init__(self, tool: str) -> None:
        super().__init__(f"There is no tool {tool!r}.", metadata={"tool": tool}, field="tools")


class ToolNotAllowed(ToolError):
    """The agent was not given this tool."""

    code = Code.PERMISSION_DENIED
    reason = "TOOL_NOT_ALLOWED"

    def __init__(self, tool: str) -> None:
        super().__init__(f"The tool {tool!r} is not one of yours.", tool=tool)


class ToolArgumentsInvalid(ToolError):
    """The arguments do not fulfil the tool's schema."""

    code = Code.INVALID_ARGUMENT
    reason = "TOOL_ARGUMENTS_INVALID"

    def __init__(self, tool: str, *, problem: str, field: str = "arguments") -> None:
        message = f"The arguments of {tool!r} are not valid: {problem}"
        super().__init__(message, tool=tool, metadata={"problem": problem}, field=field)
        self.problem = problem


class ToolFailed(ToolError):
    """The tool failed, in words for the model."""

    code = Code.FAILED_PRECONDITION
    reason = "TOOL_FAILED"

    def __init__(self, message: str, *, tool: str) -> None:
        super().__init__(message, tool=tool)


class ToolTimeout(ToolError):
    """The tool took too long."""

    code = Code.DEADLINE_EXCEEDED
    reason = "TOOL_TIMEOUT"

    def __init__(self, tool: str) -> None:
        super().__init__(f"The tool {tool!r} took too long.", tool=tool)


class ToolUnavailable(ToolError):
    """The tool is not configured, or its server is not healthy."""

    code = Code.FAILED_PRECONDITION
    reason = "TOOL_UNAVAILABLE"

    def __init__(self, tool: str, *, variable: str = "") -> None:
        super().__init__(
            f"The tool {tool!r} is not available" + (f": set {variable}." if variable else "."),
            tool=tool,
            metadata={"variable": variable},
        )


class ToolDenied(ToolError):
    """A human denied the call."""

    code = Code.PERMISSION_DENIED
    reason = "TOOL_DENIED"

    def __init__(self, tool: str, *, comment: str = "") -> None:
        super().__init__(f"A human denied this call of {tool!r}" + (f": {comment}" if comment else "."), tool=tool)


class ToolNameClash(ToolError):
    """Two tools have the same name."""

    code = Code.ALREADY_EXISTS
    reason = "TOOL_NAME_CLASH"

    def __init__(self, tool: str) -> None:
        super().__init__(f"There is a tool {tool!r} already.", tool=tool)


class CoworkerUnknown(ToolError):
    """Work cannot be handed on to this one."""

    code = Code.INVALID_ARGUMENT
    reason = "COWORKER_UNKNOWN"

    def __init__(self, tool: str, *, coworker: str, known: str) -> None:
        super().__init__(f"Not handed on. The coworkers are: {known}.", tool=tool, metadata={"coworker": coworker})
