"""Work that an agent hands on to others of its crew: the tools it does that with, and what comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loremesh_agent.domain.tools import ApprovalPolicy, Effect, ToolSpec, ToolUse

DELEGATE, ASK = "delegate_work", "ask_coworker"
# Tools nobody calls: the run waits until somebody else has done it.
TOOLS = (DELEGATE, ASK)
# They are handed on within the crew; who may do what there is the crew's to say.
USES = tuple(ToolUse(name=name, approval=ApprovalPolicy.NEVER) for name in TOOLS)
_TASKS = {DELEGATE: "task", ASK: "question"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coworker:
    """Another of the crew."""

    name: str
    role: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What came of work: an output, or the reason why there is none."""

    output: str = ""
    reason: str = ""

    @property
    def content(self) -> str:
        """What the model is told."""
        return f"It was not done: {self.reason}.\n{self.output}".rstrip() if self.reason else self.output


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """Work that a run handed on, in its step of this number; `delivered` None while it is open."""

    id: str
    number: int
    coworker: str
    description: str
    context: str = ""
    delivered: Delivered | None = None


def specs(coworkers: Sequence[Coworker]) -> tuple[ToolSpec, ...]:
    """The tools of an agent that has coworkers; none without."""
    if not coworkers:
        return ()
    names = "\n".join(f"- {each.name}: {each.role}" if each.role else f"- {each.name}" for each in coworkers)
    return (
        _spec(DELEGATE, f"Hand on a task to a coworker, who answers with the result. Coworkers:\n{names}", "The task."),
        _spec(ASK, f"Ask a coworker a question. Coworkers:\n{names}", "The question."),
    )


def _spec(name: str, description: str, task: str) -> ToolSpec:
    return ToolSpec(
        name=name,
        description=description,
        input_schema={
            "type": "object",
            "properties": {
                "coworker": {"type": "string", "description": "The coworker's name."},
                _TASKS[name]: {"type": "string", "minLength": 1, "description": task},
                "context": {"type": "string", "description": "All they need to know: they know nothing else."},
            },
            "required": ["coworker", _TASKS[name]],
            "additionalProperties": False,
        },
        effect=Effect.IDEMPOTENT,
    )


def found(coworkers: Sequence[Coworker], name: str) -> Coworker | None:
    """Whom a model means; it may be careless about capitals."""
    return next((each for each in coworkers if each.name.strip().casefold() == name.strip().casefold()), None)


def delegation(
    name: str, arguments: Mapping[str, Any], *, coworkers: Sequence[Coworker], delegation_id: str, number: int
) -> Delegation:
    """The work that a call hands on; `arguments` fulfil the tool's schema and name a coworker."""
    coworker = found(coworkers, arguments["coworker"])
    return Delegation(
        id=delegation_id,
        coworker=coworker.name if coworker else arguments["coworker"],
        description=arguments[_TASKS[name]],
        context=arguments.get("context", ""),
        number=number,
    )
