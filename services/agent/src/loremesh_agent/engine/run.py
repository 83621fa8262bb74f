"""One answer in the making."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from string import Template

import structlog
from loremesh_kit import deadline, identity
from loremesh_kit.errors import DeadlineExceeded, Internal, ServiceError
from loremesh_kit.loops import background
from loremesh_kit.text import clean

from loremesh_agent.domain import steps
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.citations import CitationFilter
from loremesh_agent.domain.claims import check
from loremesh_agent.domain.conversations import State, Usage
from loremesh_agent.domain.definitions import GroundingPolicy
from loremesh_agent.domain.events import (
    Answer,
    Completed,
    Failed,
    FinishReason,
    Incomplete,
    ModelChanged,
    Payload,
    RunStarted,
    SourcesFound,
    TextDelta,
    TextFinish,
    TextStart,
)
from loremesh_agent.domain.excerpts import best_sentence
from loremesh_agent.domain.grounding import apply, is_refusal, support
from loremesh_agent.domain.passages import numbered, shown
from loremesh_agent.domain.prompts import Prompt, without_references
from loremesh_agent.domain.repetition import repeats_itself
from loremesh_agent.domain.tokens import estimate
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.engine.settling import settle
from loremesh_agent.ports import (
    FinishedTurn,
    ModelFinish,
    ModelProvider,
    ModelRequest,
    ModelSwitched,
    ModelText,
    NewTurn,
    TurnStore,
)

# Left of the caller's time to tell it that the rest was not enough.
_MARGIN_SECONDS = 0.1
# So many of the first pieces let others have their turn, who tell them: an answer that comes all at once would keep its
# first word from them until the last. It would cost each piece a fifth of its time.
_HURRIED = 8
_NOTHING_ASKED = ModelFinish(reason=FinishReason.STOP)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be answered; `prompt` None when nothing was found to answer from."""

    turn: NewTurn
    agent: Agent
    prompt: Prompt | None
    temperature: float | None
    # What was searched for.
    search_text: str = ""
    # Of the indexes searched, by vector store.
    generations: Mapping[str, int] = field(default_factory=dict)

    @property
    def conversation_id(self) -> str:
        """The conversation the answer belongs to."""
        return self.turn.conversation_id or self.turn.new_conversation_id


class Run:
    """Asks the model and tells what happens; ends with one terminal event, unless it is cancelled."""

    def __init__(
        self,
        task: Task,
        *,
        emit: Callable[[Payload], None],
        provider: ModelProvider,
        turns: TurnStore,
        quoting: Quoting,
        keep_seconds: float,
    ) -> None:
        """`emit` takes what happens, in order; what there is of the answer is kept each `keep_seconds`."""
        self._task = task
        self._passages = task.prompt.passages if task.prompt else ()
        self._emit = emit
        self._provider = provider
        self._turns = turns
        self._quoting = quoting
        self._keep_seconds = keep_seconds
        self._citations = CitationFilter(sources=len(self._passages))
        self._model = task.agent.model
        self._pieces: list[str] = []
        # Text that is not told before it is checked; None where it is told as it comes.
        self._held: list[str] | None = None if task.agent.grounding is GroundingPolicy.ANNOTATE else []

    async def write(self) -> None:
        """Answer; whatever fails becomes the terminal event, and a cancellation is kept and passed on."""
        left = deadline.remaining()
        try:
            async with asyncio.timeout(None if left is None else max(0.0, left - _MARGIN_SECONDS)):
                await self._answer()
        except asyncio.CancelledError:
            await self._keep_as(State.CANCELLED)
            raise
        except TimeoutError:
            await self._fail(DeadlineExceeded())
        except ServiceError as error:
            await self._fail(error)
        except Exception:  # noqa: BLE001 - the edge of a stream: past its first event nothing else could tell
            _log.exception("a run failed")
            await self._fail(Internal(request_id=identity.current().request_id))

    async def _answer(self) -> None:
        task = self._task
        self._emit(RunStarted(task.conversation_id, task.agent.id, task.turn.question_id))
        self._emit(SourcesFound(numbered(self._passages), task.search_text))
        if task.prompt is None:
            self._held = None
            self._say(task.agent.wording.refusal)
            await self._finish(_NOTHING_ASKED, grounded=False)
        else:
            finish = await self._relay(task.prompt)
            self._say(self._citations.finish())
            await self._finish(finish, grounded=self._ground())

    async def _relay(self, prompt: Prompt) -> ModelFinish:
        """Pass the model's text on as it comes, and keep what there is from time to time."""
        wording = self._task.agent.wording
        async with background() as group:
            keeping = group.create_task(self._keep_along())
            async with aclosing(self._provider.stream(self._request(prompt))) as events:
                async for event in events:
                    match event:
                        case ModelText(text):
                            self._say(self._citations.feed(clean(text)))
                            if 0 < len(self._pieces) < _HURRIED:
                                await asyncio.sleep(0)
                            if wording.ends_at_repetition and repeats_itself(self._so_far()):
                                finish = ModelFinish(reason=FinishReason.STOP)
                                break
                        case ModelSwitched(before=before, after=after, reason=reason):
                            self._model = after
                            self._emit(ModelChanged(before, after, reason))
                        case ModelFinish():
                            finish = event
            keeping.cancel()
        return finish

    def _request(self, prompt: Prompt) -> ModelRequest:
        agent, temperature = self._task.agent, self._task.temperature
        return ModelRequest(
            model=agent.model,
            messages=prompt.messages,
            max_output_tokens=prompt.max_output_tokens,
            temperature=agent.temperature if temperature is None else temperature,
            top_p=agent.top_p,
            frequency_penalty=agent.frequency_penalty,
            stop=agent.wording.stop,
            fallback_models=agent.fallback_models,
        )

    async def _keep_along(self) -> None:
        while True:
            await asyncio.sleep(self._keep_seconds)
            await self._turns.keep(self._task.turn, self._text())

    def _say(self, text: str) -> None:
        if self._held is not None:
            self._held.append(text)
            return
        if not self._pieces:
            text = text.lstrip()
            if text:
                self._emit(TextStart())
        if text:
            self._pieces.append(text)
            self._emit(TextDelta(text))

    def _text(self) -> str:
        return "".join(self._pieces)

    def _so_far(self) -> str:
        return self._text() if self._held is None else "".join(self._held)

    def _judge(self) -> bool:
        """Tell what may be told of the text that was held back, and whether it rests on the documents."""
        agent, text = self._task.agent, self._so_far().strip()
        claims = check(
            text,
            question=self._task.turn.text,
            passages=[each.content for each in self._passages],
            titles=[each.title for each in self._passages],
            refusal=agent.wording.refusal,
        )
        judged = apply(agent.grounding, text, claims, agent.wording)
        self._held = None
        self._citations.cited = set(judged.cited)
        self._say(judged.text)
        return judged.grounded

    def _ground(self) -> bool:
        """Whether the answer rests on the documents; on which ones we say where the model did not."""
        if self._held is not None:
            return self._judge()
        wording, text = self._task.agent.wording, self._text()
        if self._citations.cited:
            return True
        if not text or is_refusal(text, refusal=wording.refusal):
            return False
        found = support(text, question=self._task.turn.text, passages=self._passages)
        if self._citations.in_code:
            return bool(found.numbers)
        if found.numbers:
            self._citations.cited.update(found.numbers)
            self._say(" " + "".join(f"[{number}]" for number in sorted(found.numbers)))
        elif found.claims and wording.unsupported:
            self._say(f"\n\n{wording.unsupported}{self._quotation()}")
            return False
        return True

    def _quotation(self) -> str:
        """What the documents do say, where the wording wants it told."""
        best = best_sentence(self._task.turn.text, self._passages)
        if best is None or not self._task.agent.wording.quotation:
            return ""
        number, sentence = best
        self._citations.cited.add(number)
        template = Template(self._task.agent.wording.quotation)
        return " " + template.substitute(sentence=without_references(sentence), number=number)

    async def _finish(self, finish: ModelFinish, *, grounded: bool) -> None:
        if self._pieces:
            self._emit(TextFinish(finish.reason))
        sources = shown(numbered(self._passages, cited=self._citations.cited))
        answer = Answer(
            text=self._text(),
            run_id=self._task.turn.run_id,
            conversation_id=self._task.conversation_id,
            message_id=self._task.turn.answer_id,
            finish_reason=finish.reason,
            grounded=grounded,
            sources=await self._quoting.without_deleted(sources),
            usage=finish.usage or self._estimated_usage(),
            model=self._model if self._task.prompt else "",
        )
        whole = finish.reason is FinishReason.STOP
        await self._turns.finish(
            self._task.turn,
            FinishedTurn(
                content=answer.text,
                state=State.COMPLETED if whole else State.INCOMPLETE,
                sources=answer.sources,
                usage=answer.usage,
                model=answer.model,
                grounded=grounded,
                finish_reason=answer.finish_reason,
                record=steps.record(self._task.agent, model=answer.model, generations=self._task.generations),
            ),
        )
        self._emit(Completed(answer) if whole else Incomplete(answer))

    def _estimated_usage(self) -> Usage | None:
        """Where the provider did not tell, or was not let finish."""
        if self._task.prompt is None:
            return None
        read = sum(estimate(message.content) for message in self._task.prompt.messages)
        return Usage(input_tokens=read, output_tokens=estimate(self._text()))

    async def _fail(self, error: ServiceError) -> None:
        _log.warning("a run failed", reason=error.reason, error=error.message, run_id=self._task.turn.run_id)
        await self._keep_as(State.FAILED)
        self._emit(Failed(error))

    async def _keep_as(self, state: State) -> None:
        model = self._model if self._task.prompt else ""
        finished = FinishedTurn(content=self._text(), state=state, sources=numbered(self._passages), model=model)
        try:
            await settle(lambda: self._turns.finish(self._task.turn, finished))
        except (ServiceError, TimeoutError) as error:
            # It stays IN_PROGRESS, which says as much, until the next turn of the conversation.
            _log.warning("an answer could not be kept", run_id=self._task.turn.run_id, error=str(error))
