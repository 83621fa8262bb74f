"""ChatService and ConversationService: messages in, use cases, messages out."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc import aio
from loremesh.agent.v1 import chat_pb2 as chat
from loremesh.agent.v1 import conversation_pb2 as pb
from loremesh.agent.v1.chat_pb2_grpc import ChatServiceServicer
from loremesh.agent.v1.conversation_pb2_grpc import ConversationServiceServicer
from loremesh_kit import pages
from loremesh_kit.errors import InvalidField, PageTokenInvalid
from loremesh_kit.pages import Position
from loremesh_kit.structs import plain
from loremesh_kit.text import clean

from loremesh_agent import calls, protos
from loremesh_agent.engine.conversations import ConversationEngine
from loremesh_agent.engine.talking import Talking
from loremesh_agent.ports import ConversationChange

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE = 50
_CHANGEABLE = ("title", "attributes")


class ChatServicer(ChatServiceServicer):
    """Answers messages, at once or as a stream."""

    def __init__(self, *, engine: Talking) -> None:
        self._engine = engine

    async def Chat(self, request: chat.ChatRequest, context: Context) -> chat.ChatResponse:  # noqa: N802
        """The whole answer."""
        del context
        claim = calls.claim(request, method="Chat")
        answer = await self._engine.answer(protos.question(request), request=_kept(request), claim=claim)
        return protos.response(answer)

    async def StreamChat(self, request: chat.ChatRequest, context: Context) -> AsyncIterator[chat.ChatEvent]:  # noqa: N802
        """The answer as it comes."""
        del context
        claim = calls.claim(request, method="Chat")
        stream = self._engine.stream(protos.question(request), request=_kept(request), claim=claim)
        async with aclosing(stream) as events:
            async for event in events:
                yield protos.event(event)


class ConversationServicer(ConversationServiceServicer):
    """Keeps conversations."""

    def __init__(self, *, engine: ConversationEngine) -> None:
        self._engine = engine

    async def CreateConversation(  # noqa: N802
        self, request: pb.CreateConversationRequest, context: Context
    ) -> pb.Conversation:
        """Create an empty one."""
        del context
        wanted = request.conversation
        made = await self._engine.create(
            title=clean(wanted.title), agent_id=clean(wanted.agent_id), attributes=_cleaned(plain(wanted.attributes))
        )
        return protos.conversation(made)

    async def GetConversation(self, request: pb.GetConversationRequest, context: Context) -> pb.Conversation:  # noqa: N802
        """Get one."""
        del context
        return protos.conversation(await self._engine.get(clean(request.conversation_id)))

    async def ListConversations(  # noqa: N802
        self, request: pb.ListConversationsRequest, context: Context
    ) -> pb.ListConversationsResponse:
        """List them, the one changed last first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        after = pages.decode_token(request.page_token, query=request)
        found = await self._engine.page(after=after, limit=size + 1)
        response = pb.ListConversationsResponse(conversations=map(protos.conversation, found[:size]))
        if len(found) > size:
            last = Position(sort_key=found[size - 1].update_time.isoformat(), id=found[size - 1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def UpdateConversation(  # noqa: N802
        self, request: pb.UpdateConversationRequest, context: Context
    ) -> pb.Conversation:
        """Change title or attributes."""
        del context
        wanted = request.conversation
        if not wanted.id:
            raise InvalidField("the id is missing", field="conversation.id")
        updated = await self._engine.update(clean(wanted.id), _change(request), etag=wanted.etag)
        return protos.conversation(updated)

    async def DeleteConversation(  # noqa: N802
        self, request: pb.DeleteConversationRequest, context: Context
    ) -> pb.DeleteConversationResponse:
        """Delete one with its messages."""
        del context
        await self._engine.delete(clean(request.conversation_id))
        return pb.DeleteConversationResponse()

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:  # noqa: N802
        """List a conversation's messages, oldest first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        position = pages.decode_token(request.page_token, query=request)
        found = await self._engine.messages(clean(request.conversation_id), after=_ordinal(position), limit=size + 1)
        response = pb.ListMessagesResponse(messages=map(protos.message, found[:size]))
        if len(found) > size:
            last = Position(sort_key=str(found[size - 1].position), id=found[size - 1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def SetMessageFeedback(self, request: pb.SetMessageFeedbackRequest, context: Context) -> pb.Message:  # noqa: N802
        """Say how good an answer was."""
        del context
        feedback = protos.read_feedback(request.feedback)
        return protos.message(await self._engine.rate(clean(request.message_id), feedback))


def _kept(request: chat.ChatRequest) -> bytes:
    return request.SerializeToString(deterministic=True)


def _change(request: pb.UpdateConversationRequest) -> ConversationChange:
    """The fields of the mask, or those which are set; raises InvalidField for one that cannot be changed."""
    wanted = request.conversation
    for path in request.update_mask.paths:
        if path not in _CHANGEABLE:
            raise InvalidField(f"{path!r} cannot be updated", field="update_mask")
    given = {"title": bool(wanted.title), "attributes": wanted.HasField("attributes")}
    chosen = set(request.update_mask.paths) or {name for name in _CHANGEABLE if given[name]}
    return ConversationChange(
        title=clean(wanted.title) if "title" in chosen else None,
        attributes=_cleaned(plain(wanted.attributes)) if "attributes" in chosen else None,
    )


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(key): _cleaned(each) for key, each in value.items()}
        case list():
            return [_cleaned(each) for each in value]
    return value


def _ordinal(position: Position | None) -> int:
    if position is None:
        return 0
    if not position.sort_key.isdigit():
        raise PageTokenInvalid
    return int(position.sort_key)
