"""What the use cases speak of, as protobuf messages."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from loremesh.agent.v1 import agent_pb2 as agent_pb
from loremesh.agent.v1 import chat_job_pb2 as job_pb
from loremesh.agent.v1 import chat_pb2 as chat
from loremesh.agent.v1 import conversation_pb2 as pb
from loremesh_kit import filters
from loremesh_kit.errors import ServiceError
from loremesh_kit.text import clean

from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.conversations import Conversation, Feedback, Message, Rating, Role, State, Usage
from loremesh_agent.domain.definitions import LimitPolicy, Limits
from loremesh_agent.domain.events import (
    Answer,
    Cancelled,
    CitationResolved,
    Completed,
    Event,
    Failed,
    FinishReason,
    Heartbeat,
    Incomplete,
    ModelChanged,
    Payload,
    Resumed,
    RunStarted,
    SourcesFound,
    TextDelta,
    TextFinish,
    TextStart,
    ToolAnswered,
    ToolCalled,
    UsageTold,
    Waiting,
)
from loremesh_agent.domain.passages import Source
from loremesh_agent.domain.prompts import Attachment
from loremesh_agent.domain.questions import Question
from loremesh_agent.domain.steps import Step, StepKind, StepState
from loremesh_agent.domain.tools import Outcome
from loremesh_agent.errors import MessageEmpty

_FINISH = {
    FinishReason.STOP: chat.FINISH_REASON_STOP,
    FinishReason.LENGTH: chat.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: chat.FINISH_REASON_CONTENT_FILTER,
    FinishReason.REFUSAL: chat.FINISH_REASON_REFUSAL,
    FinishReason.TOOL_CALLS: chat.FINISH_REASON_TOOL_CALLS,
    FinishReason.LIMIT: chat.FINISH_REASON_LIMIT,
}
_OUTCOMES = {outcome: chat.ToolOutcome.Value(f"TOOL_OUTCOME_{outcome}") for outcome in Outcome}
_STEP_KINDS = {kind: job_pb.StepKind.Value(f"STEP_KIND_{kind}") for kind in StepKind}
_STEP_STATES = {state: job_pb.StepState.Value(f"STEP_STATE_{state}") for state in StepState}
_LIMIT_POLICIES = {agent_pb.LimitPolicy.Value(f"LIMIT_POLICY_{policy}"): policy for policy in LimitPolicy}
_ROLES = {Role.USER: pb.ROLE_USER, Role.AGENT: pb.ROLE_AGENT}
_STATES = {state: pb.MessageState.Value(f"MESSAGE_STATE_{state}") for state in State}
_STATUSES = {status: job_pb.ChatJobStatus.Value(f"CHAT_JOB_STATUS_{status}") for status in Status}
_RATINGS = {Rating.GOOD: pb.RATING_GOOD, Rating.BAD: pb.RATING_BAD}
_READ_RATINGS = {proto: rating for rating, proto in _RATINGS.items()}


def event(happened: Event) -> chat.ChatEvent:
    """One event of a stream."""
    proto = chat.ChatEvent(run_id=happened.run_id, seq=happened.seq, attempt=happened.attempt)
    proto.time.CopyFrom(timestamp(happened.time))
    match happened.payload:
        case TextDelta(text, block):
            proto.text_delta.text, proto.text_delta.block = text, block
        case Heartbeat():
            proto.heartbeat.SetInParent()
        case RunStarted(conversation_id, agent_id, message_id):
            proto.run_started.conversation_id = conversation_id
            proto.run_started.agent_id, proto.run_started.message_id = agent_id, message_id
        case SourcesFound(sources, search_text):
            proto.sources.search_text = search_text
            proto.sources.sources.extend(map(source, sources))
            proto.sources.SetInParent()
        case TextStart(block):
            proto.text_start.block = block
            proto.text_start.SetInParent()
        case TextFinish(reason, block):
            proto.text_finish.finish_reason, proto.text_finish.block = _FINISH[reason], block
        case payload:
            _act(proto, payload)
            _end(proto, payload)
    return proto


def _act(proto: chat.ChatEvent, payload: Payload) -> None:
    match payload:
        case ToolCalled():
            proto.tool_call.call_id, proto.tool_call.name = payload.call_id, payload.name
            proto.tool_call.arguments.CopyFrom(struct(payload.arguments))
            proto.tool_call.step = payload.step
        case ToolAnswered():
            proto.tool_result.CopyFrom(
                chat.ToolAnswered(
                    call_id=payload.call_id,
                    name=payload.name,
                    outcome=_OUTCOMES[payload.outcome],
                    content=payload.content,
                    reason=payload.reason,
                    duration_ms=payload.duration_ms,
                    sources=map(source, payload.sources),
                )
            )
        case UsageTold(taken):
            proto.usage.CopyFrom(usage(taken) or chat.Usage())
        case Waiting(approval_id, question_, due_time):
            proto.waiting.approval_id, proto.waiting.question = approval_id, question_
            proto.waiting.due_time.CopyFrom(timestamp(due_time))
        case Resumed(approval_id):
            proto.resumed.approval_id = approval_id
        case CitationResolved(number, block, start_char):
            proto.citation.CopyFrom(chat.Citation(number=number, block=block, start_char=start_char))
        case ModelChanged(before, after, reason):
            proto.model_changed.CopyFrom(chat.ModelChanged(to=after, reason=reason, **{"from": before}))


def _end(proto: chat.ChatEvent, payload: Payload) -> None:
    match payload:
        case Completed(answer):
            proto.completed.CopyFrom(response(answer))
        case Incomplete(answer):
            proto.incomplete.reason = _FINISH[answer.finish_reason]
            proto.incomplete.partial.CopyFrom(response(answer))
            proto.incomplete.limit = answer.limit
        case Failed(error):
            proto.failed.CopyFrom(failure(error))
        case Cancelled():
            proto.cancelled.SetInParent()


def failure(error: ServiceError) -> chat.RunFailed:
    """Why a run failed."""
    return chat.RunFailed(
        reason=error.reason, message=error.message, retryable=error.retryable, metadata=error.metadata
    )


def response(answer: Answer) -> chat.ChatResponse:
    """An answer."""
    return chat.ChatResponse(
        response=answer.text,
        conversation_id=answer.conversation_id,
        sources=map(source, answer.sources),
        run_id=answer.run_id,
        usage=usage(answer.usage) or chat.Usage(),
        finish_reason=_FINISH[answer.finish_reason],
        grounded=answer.grounded,
        message_id=answer.message_id,
        model=answer.model,
    )


def source(given: Source) -> chat.Source:
    """A source."""
    passage = given.passage
    return chat.Source(
        number=given.number,
        document_id=passage.document_id,
        chunk_id=passage.chunk_id,
        title=passage.title,
        content=passage.content,
        score=passage.score,
        attributes=struct(passage.attributes),
        page=passage.page,
        start_char=passage.start_char,
        end_char=passage.end_char,
        heading_path=passage.heading_path,
        vector_store_id=passage.vector_store_id,
        cited=given.cited,
        deleted=given.deleted,
    )


def usage(taken: Usage | None) -> chat.Usage | None:
    """What was taken, None where it is unknown."""
    return None if taken is None else chat.Usage(**asdict(taken))


def conversation(kept: Conversation) -> pb.Conversation:
    """A conversation."""
    return pb.Conversation(
        id=kept.id,
        title=kept.title,
        agent_id=kept.agent_id,
        attributes=struct(kept.attributes),
        message_count=kept.message_count,
        create_time=timestamp(kept.create_time),
        update_time=timestamp(kept.update_time),
        etag=kept.etag,
    )


def message(kept: Message) -> pb.Message:
    """A message."""
    return pb.Message(
        id=kept.id,
        conversation_id=kept.conversation_id,
        role=_ROLES[kept.role],
        content=kept.content,
        sources=map(source, kept.sources),
        state=_STATES[kept.state],
        run_id=kept.run_id,
        usage=usage(kept.usage),
        feedback=_feedback(kept.feedback) if kept.feedback else None,
        create_time=timestamp(kept.create_time),
        model=kept.model,
        grounded=kept.grounded,
        agent_revision=kept.agent_revision,
    )


def _feedback(said: Feedback) -> pb.Feedback:
    rating = _RATINGS[said.rating] if said.rating else pb.RATING_UNSPECIFIED
    return pb.Feedback(rating=rating, comment=said.comment)


def read_feedback(proto: pb.Feedback) -> Feedback | None:
    """What was said, None when that takes back what was said before."""
    rating = _READ_RATINGS.get(proto.rating)
    comment = clean(proto.comment)
    return Feedback(rating=rating, comment=comment) if rating or comment else None


def question(request: chat.ChatRequest) -> Question:
    """What a request asks; raises MessageEmpty, FilterInvalid."""
    text = clean(request.message)
    if not text.strip():
        # A message of NULs is none, though the proto's rule lets it pass.
        raise MessageEmpty
    return Question(
        text=text,
        conversation_id=clean(request.conversation_id) or None,
        agent_id=clean(request.agent_id),
        vector_store_ids=tuple(map(clean, request.vector_store_ids)),
        top_k=request.top_k if request.HasField("top_k") else None,
        filter_=filters.from_proto(request.filter) if request.HasField("filter") else None,
        temperature=request.temperature if request.HasField("temperature") else None,
        max_output_tokens=request.max_output_tokens if request.HasField("max_output_tokens") else None,
        attachments=tuple(
            Attachment(media_type=each.media_type, data=each.data, filename=clean(each.filename))
            for each in request.attachments
        ),
        limits=read_limits(request.limits) if request.HasField("limits") else None,
    )


def read_limits(proto: agent_pb.Limits) -> Limits:
    """Limits; what is zero is not set."""
    return Limits(
        max_steps=proto.max_steps or None,
        max_tokens=proto.max_tokens or None,
        max_cost_micros=proto.max_cost_micros or None,
        max_tool_calls=proto.max_tool_calls or None,
        max_seconds=proto.max_time.ToTimedelta().total_seconds() if proto.HasField("max_time") else None,
        on_limit=_LIMIT_POLICIES.get(proto.on_limit, LimitPolicy.STOP),
        fallback_model=clean(proto.fallback_model),
        max_rpm=proto.max_rpm or None,
    )


def read_question(request: bytes) -> Question:
    """What a serialized ChatRequest asks."""
    return question(chat.ChatRequest.FromString(request))


def chat_job(kept: ChatJob) -> job_pb.ChatJob:
    """A chat job."""
    return job_pb.ChatJob(
        job_id=kept.id,
        status=_STATUSES[kept.status],
        result=response(kept.answer) if kept.answer else None,
        error=failure(kept.error) if kept.error else None,
        conversation_id=kept.conversation_id,
        attempt=kept.attempt,
        create_time=timestamp(kept.create_time),
        finish_time=timestamp(kept.finish_time) if kept.finish_time else None,
        expire_time=timestamp(kept.expire_time) if kept.expire_time else None,
        record=_record(kept) if kept.record is not None else None,
        usage=usage(kept.usage),
    )


def _record(kept: ChatJob) -> job_pb.RunRecord:
    made_with = kept.record or {}
    return job_pb.RunRecord(
        agent_id=kept.agent_id,
        agent_revision=made_with["agent_revision"],
        model=made_with["model"],
        **{f"prompt_{name}": value for name, value in (made_with.get("prompt") or {}).items()},
        tool_schemas=made_with["tool_schemas"],
        index_generations=made_with.get("index_generations", {}),
    )


def step(kept: Step) -> job_pb.RunStep:
    """A step of a run."""
    return job_pb.RunStep(
        number=kept.number,
        kind=_STEP_KINDS[kept.kind],
        state=_STEP_STATES[kept.state],
        name=kept.name,
        input=struct(kept.input),
        output=struct(kept.output),
        usage=usage(kept.usage),
        idempotency_key=kept.idempotency_key,
        start_time=timestamp(kept.start_time) if kept.start_time else None,
        finish_time=timestamp(kept.finish_time) if kept.finish_time else None,
    )


def read_status(proto: job_pb.ChatJobStatus.ValueType) -> Status | None:
    """A status, None where it is unspecified."""
    return next((status for status, value in _STATUSES.items() if value == proto), None)


def struct(attributes: Mapping[str, Any]) -> Struct:
    """A JSON object."""
    proto = Struct()
    proto.update(attributes)
    return proto


def timestamp(time: datetime) -> Timestamp:
    """An instant."""
    proto = Timestamp()
    proto.FromDatetime(time)
    return proto
