"""Whether an answer of a run rests on what it was given, and what of it is told by its agent's policy."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.claims import Claim, check
from loremesh_agent.domain.definitions import GroundingPolicy
from loremesh_agent.domain.grounding import apply, is_refusal, support
from loremesh_agent.domain.loop import State
from loremesh_agent.engine.block import Block


def holds_back(agent: Agent) -> bool:
    """Whether nothing is told before it is judged; data is not cut into claims."""
    return agent.grounding is not GroundingPolicy.ANNOTATE and agent.response_schema is None


async def judge(state: State, block: Block, *, agent: Agent, question: str, whole: bool) -> bool:
    """Tell what may be told of a block that was held back; whether it rests on sources.

    `whole` where it is the answer, and not said beside calls: before the end there is nothing to refuse.
    """
    passages = {source.number: source.passage for source in state.sources}
    numbered = [passages.get(number) for number in range(1, max(passages, default=0) + 1)]
    said = [message.content for message in state.messages if message.role == "tool"]
    text = block.held.strip()
    # A long text against many passages takes seconds, which belong to all who are waiting.
    claims = await asyncio.to_thread(
        check,
        text,
        question=question,
        passages=[*(each.content if each else "" for each in numbered), *said],
        titles=[each.title if each else "" for each in numbered],
        refusal=agent.wording.refusal,
    )
    judged = apply(agent.grounding, text, _of_passages(claims, last=len(numbered)), agent.wording)
    is_refused = judged.text == agent.wording.refusal
    block.release("" if is_refused and not whole else judged.text)
    return judged.grounded and bool(judged.cited)


def _of_passages(claims: Sequence[Claim], *, last: int) -> list[Claim]:
    """The claims without those that only a tool's words support: they stand, and there is nothing to cite."""
    kept = [replace(each, spans=tuple(span for span in each.spans if span.passage <= last)) for each in claims]
    return [new for new, old in zip(kept, claims, strict=True) if new.supported or not old.supported]


def annotate(state: State, block: Block, *, agent: Agent, question: str) -> bool:
    """Whether an answer that was told rests on sources; where it does not say on which, that is added to it."""
    if not state.sources:
        return False
    if block.cited:
        return True
    if not block.text or is_refusal(block.text, refusal=agent.wording.refusal):
        return False
    found = support(block.text, question=question, passages=[source.passage for source in state.sources])
    if found.numbers and not block.as_it_is:
        numbers = sorted(state.sources[number - 1].number for number in found.numbers)
        block.add(" " + "".join(f"[{number}]" for number in numbers))
    return bool(found.numbers)
