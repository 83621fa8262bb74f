"""Why something is not remembered or forgotten."""

from loremesh_kit.errors import Code, InvalidField, Missing, ServiceError


class MemoryNotFound(Missing):
    """The caller has no memory of this id."""

    reason = "MEMORY_NOT_FOUND"
    what, key, type = "memory", "memory_id", "loremesh.agent.v1.Memory"


class MemoryReceiptNotFound(Missing):
    """The caller has no receipt of a forgetting of this id."""

    reason = "MEMORY_RECEIPT_NOT_FOUND"
    what, key, type = "receipt", "receipt_id", "loremesh.agent.v1.MemoryReceipt"


class MemoryInvalid(InvalidField):
    """It cannot be remembered as it is."""

    reason = "MEMORY_INVALID"

    def __init__(self, message: str = "content must not be empty", *, field: str = "content") -> None:
        super().__init__(message, field=f"memory.{field}")


class MemoryFull(ServiceError):
    """The scope holds as many memories as it may."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "MEMORY_FULL"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            f"There are {limit} memories of this scope: forget some first.", metadata={"limit": str(limit)}
        )


class ScopeRequired(InvalidField):
    """Neither a memory nor a scope is named."""

    reason = "SCOPE_REQUIRED"

    def __init__(self) -> None:
        super().__init__("Name a memory or a scope.", field="scope")
