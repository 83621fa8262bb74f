"""How a run or a task ends without an answer, and what its approvals refuse."""

from collections.abc import Mapping

from loremesh_kit.errors import Code, InvalidField, Missing, ServiceError


class KeptFailure(ServiceError):
    """Why a run failed, as it was kept."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        retryable: bool,
        metadata: Mapping[str, str],
        code: str = Code.INTERNAL,
        field: str | None = None,
    ) -> None:
        """`code` is a Code's name; what was kept before codes were has none."""
        self.code = Code(code)
        self.reason = reason
        self._retryable = retryable
        super().__init__(message, metadata=metadata, field=field)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self._retryable


class GivenUp(ServiceError):
    """A failure which may pass, but has been waited for long enough."""

    def __init__(self, cause: ServiceError) -> None:
        super().__init__(cause.message, metadata=cause.metadata)
        self.code = cause.code
        self.reason = cause.reason
        self.violations = cause.violations
        self.cause = cause

    @property
    def retryable(self) -> bool:
        """Not by us."""
        return False


class RunCancelled(ServiceError):
    """The run was cancelled before it had an answer."""

    code = Code.CANCELLED
    reason = "RUN_CANCELLED"

    def __init__(self) -> None:
        super().__init__("The run was cancelled.")


class BudgetExhausted(ServiceError):
    """The run took as much as it may."""

    code = Code.FAILED_PRECONDITION
    reason = "BUDGET_EXHAUSTED"

    def __init__(self, limit: str) -> None:
        super().__init__(f"The run reached its limit of {limit}.", metadata={"limit": limit})


class TaskTimeout(ServiceError):
    """The task's time was over before it was done."""

    code = Code.DEADLINE_EXCEEDED
    reason = "TASK_TIMEOUT"

    def __init__(self) -> None:
        super().__init__("The task's time was over before it was done.")


class TenantBudgetExhausted(ServiceError):
    """The tenant took as much as it may this month."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "TENANT_BUDGET_EXHAUSTED"

    def __init__(self, limit: str) -> None:
        super().__init__(f"The limit of {limit} for this month is reached.", metadata={"limit": limit})


class TaskNotFound(Missing):
    """The caller has no task of this id, or not any more."""

    reason = "TASK_NOT_FOUND"
    what, key, type = "task", "task_id", "loremesh.agent.v1.AgentTask"


class ApprovalNotFound(Missing):
    """The caller has no approval of this id."""

    reason = "APPROVAL_NOT_FOUND"
    what, key, type = "approval", "approval_id", "loremesh.agent.v1.Approval"


class ApprovalDecided(ServiceError):
    """It was decided otherwise before, or expired."""

    code = Code.FAILED_PRECONDITION
    reason = "APPROVAL_DECIDED"

    def __init__(self, approval_id: str, *, state: str) -> None:
        super().__init__(f"The approval is {state} already.", metadata={"approval_id": approval_id, "state": state})


class ApprovalExpired(ServiceError):
    """Nobody decided in time, and the run may not go on without."""

    code = Code.FAILED_PRECONDITION
    reason = "APPROVAL_EXPIRED"

    def __init__(self, approval_id: str) -> None:
        super().__init__("Nobody decided in time.", metadata={"approval_id": approval_id})


class DecisionInvalid(InvalidField):
    """The decision does not fit what is asked."""

    reason = "DECISION_INVALID"

    def __init__(self, problem: str, *, kind: str, decision: str) -> None:
        super().__init__(problem, metadata={"kind": kind, "decision": decision}, field="decision")


class OutputRejected(ServiceError):
    """A human did not accept the output, or nobody did in time."""

    code = Code.FAILED_PRECONDITION
    reason = "OUTPUT_REJECTED"

    def __init__(self, approval_id: str) -> None:
        super().__init__("The output was not accepted.", metadata={"approval_id": approval_id})
