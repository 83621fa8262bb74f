"""What the use cases speak of, as protobuf messages."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from loremesh.agent.v1 import chat_job_pb2 as job_pb
from loremesh.agent.v1 import chat_pb2 as chat
from loremesh.agent.v1 import conversation_pb2 as pb
from loremesh_kit import filters
from loremesh_kit.errors import ServiceError
from loremesh_kit.text import clean

from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.conversations import Conversation, Feedback, Message, Rating, Role, State, Usage
from loremesh_agent.domain.events import (
    Answer,
    Cancelled,
    Completed,
    Event,
    Failed,
    FinishReason,
    Heartbeat,
    Incomplete,
    Payload,
    RunStarted,
    SourcesFound,
    TextDelta,
    TextFinish,
    TextStart,
)
from loremesh_agent.domain.passages import Source
from loremesh_agent.domain.questions import Question
from loremesh_agent.errors import MessageEmpty

_FINISH = {
    FinishReason.STOP: chat.FINISH_REASON_STOP,
    FinishReason.LENGTH: chat.FINISH_REASON_LENGTH,
    FinishReason.CONTENT_FILTER: chat.FINISH_REASON_CONTENT_FILTER,
}
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
            _end(proto, payload)
    return proto


def _end(proto: chat.ChatEvent, payload: Payload) -> None:
    match payload:
        case Completed(answer):
            proto.completed.CopyFrom(response(answer))
        case Incomplete(answer):
            proto.incomplete.reason = _FINISH[answer.finish_reason]
            proto.incomplete.partial.CopyFrom(response(answer))
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
    """Tokens, None where they are unknown."""
    if taken is None:
        return None
    return chat.Usage(input_tokens=taken.input_tokens, output_tokens=taken.output_tokens)


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
