"""What a run waits for: humans who are asked, and coworkers to whom it handed work on."""

from collections.abc import Callable, Iterator, Sequence

from loremesh_kit.jobs import Job

from loremesh_agent.domain import delegation, loop, steps
from loremesh_agent.domain.approvals import Approval
from loremesh_agent.domain.approvals import State as ApprovalState
from loremesh_agent.domain.delegation import Delivered
from loremesh_agent.domain.events import Payload, Resumed
from loremesh_agent.domain.steps import Step
from loremesh_agent.domain.tools import Outcome
from loremesh_agent.engine import questions
from loremesh_agent.engine.preparing import Prepared
from loremesh_agent.engine.retelling import called, told
from loremesh_agent.ports import AskedInBackground, Recorded, Tools, WaitingFor


class Waiting:
    """What one run asks and hands on, and what it hears of that."""

    def __init__(
        self,
        job: Job,
        asked: AskedInBackground,
        prepared: Prepared,
        *,
        recorded: Recorded,
        tools: Tools,
        tell: Callable[[Payload], None],
    ) -> None:
        self._job, self._asked, self._agent = job, asked, prepared.agent
        self._tools = tools
        self._tell = tell
        # Calls of which this attempt has told that they are handed on.
        self._handed_on = {each.number for each in recorded.delegations} if asked.resumed else set()

    def new(self, wanted: Sequence[loop.Wanted]) -> Sequence[loop.HandOn]:
        """The calls that are to be handed on; each is new once."""
        new = [each for each in wanted if isinstance(each, loop.HandOn) and each.number not in self._handed_on]
        self._handed_on.update(each.number for each in new)
        return new

    def begins(self, wanted: Sequence[loop.Wanted], state: loop.State) -> WaitingFor:
        """What is to be asked and handed on now; what was before may be among it."""
        asked = [each for each in wanted if isinstance(each, loop.AskHuman)]
        turn = self._asked.turn
        asking = [
            questions.asking(
                each,
                number=number,
                rules=state.rules,
                run_id=self._job.id,
                conversation_id=turn.conversation_id or turn.new_conversation_id,
                agent=self._agent,
            )
            for number, each in enumerate(asked, state.number + 1)
        ]
        handed_on = [
            delegation.delegation(
                each.name,
                each.arguments,
                coworkers=state.rules.coworkers,
                delegation_id=f"{self._job.id}.{each.call_id}",
                number=each.number,
            )
            for each in wanted
            if isinstance(each, loop.HandOn)
        ]
        return WaitingFor(questions=asking, delegations=handed_on)

    def heard(self, recorded: Recorded, state: Callable[[], loop.State]) -> Iterator[tuple[loop.Event, Step]]:
        """What was decided and delivered of what the run waits for, each to be taken up before the next."""
        before = state()
        for approval in recorded.approvals:
            if _is_waited_for(approval, before):
                event = questions.decided(approval, number=state().number + 1, tools=self._tools, rules=before.rules)
                self._tell(Resumed(approval.id))
                asked = next((step for step in recorded.steps if step.name == approval.id), None)
                yield event, questions.settled(approval, event, number=asked.number if asked else 0)
        open_ = {each.number: each for each in loop.handed_on(before)}
        for each in recorded.delegations:
            if each.delivered is not None and each.number in open_:
                call, answered = open_[each.number], _answered(each.number, each.delivered)
                if call.number not in self._handed_on:
                    self._tell(called(call))
                self._tell(told(answered, call, milliseconds=0))
                yield answered, steps.tool_answered(answered, call.name)


def _answered(number: int, delivered: Delivered) -> loop.ToolTold:
    return loop.ToolTold(
        number=number,
        content=delivered.content,
        outcome=Outcome.REFUSED if delivered.reason else Outcome.OK,
        reason=delivered.reason,
    )


def _is_waited_for(approval: Approval, state: loop.State) -> bool:
    if approval.state in (ApprovalState.PENDING, ApprovalState.CANCELLED):
        return False
    draft = state.draft.approval_id if state.draft else ""
    return approval.id in {call.approval_id for call in state.calls} | {state.limit_approval_id, draft}
