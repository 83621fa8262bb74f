"""A front door in this process: the public contracts, answered from memory, with faults on demand."""

# ruff: noqa: N802 - rpcs have their names

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from loremesh.agent.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    approval_pb2,
    approval_pb2_grpc,
    chat_job_pb2_grpc,
    chat_pb2,
    chat_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
)
from loremesh.agent.v1 import chat_job_pb2 as pb_jobs
from loremesh.crew.v1 import crew_pb2_grpc, flow_pb2_grpc, run_pb2_grpc
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1 import document_pb2_grpc, job_pb2, job_pb2_grpc
from loremesh_cli.main import main

from .crew_fakes import FakeCrews, FakeFlows, FakeRuns, refuse

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class FakeDocuments(document_pb2_grpc.DocumentServiceServicer):
    """Keeps documents; `lose_answers` uploads are kept but answered UNAVAILABLE, `cut_after` ends a watch early."""

    kept: dict[str, pb.Document] = field(default_factory=dict)
    uploads: int = 0
    watches: list[int] = field(default_factory=list)
    lose_answers: int = 0
    cut_after: int = 0
    fail_with: str = ""

    async def UploadDocument(
        self, request_iterator: AsyncIterator[pb.UploadDocumentRequest], context: Context
    ) -> pb.Document:
        self.uploads += 1
        content, first = b"", pb.UploadDocumentRequest()
        async for piece in request_iterator:
            content, first = content + piece.file.data, first if content else piece
        if not content:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "DOCUMENT_EMPTY")
        document = pb.Document(
            id=first.document_id or f"d{len(self.kept)}",
            filename=first.filename,
            attributes=first.attributes,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
        )
        self.kept[document.id] = document
        if self.lose_answers:
            self.lose_answers -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return document

    async def ListDocuments(self, request: pb.ListDocumentsRequest, context: Context) -> pb.ListDocumentsResponse:
        del context
        found = [each for each in self.kept.values() if request.sha256 in ("", each.sha256)]
        return pb.ListDocumentsResponse(documents=found)

    async def IndexDocument(self, request: pb.IndexDocumentRequest, context: Context) -> pb.IndexDocumentResponse:
        del context
        self.kept[request.document_id].state = pb.DOCUMENT_STATE_UPLOADED
        return pb.IndexDocumentResponse(document=self.kept[request.document_id])

    async def WatchDocument(
        self, request: pb.WatchDocumentRequest, context: Context
    ) -> AsyncIterator[pb.DocumentEvent]:
        del context
        self.watches.append(request.after_seq)
        document = self.kept[request.document_id]
        changed = pb.DocumentStateChanged(state=pb.DOCUMENT_STATE_PARSING)
        last = pb.DocumentEvent(seq=3, ready=pb.DocumentReady(chunk_count=4))
        if self.fail_with:
            last = pb.DocumentEvent(seq=3, failed=pb.DocumentFailure(reason=self.fail_with, message="it is broken"))
        progress = pb.IndexingProgress(batches_done=1, batches_total=2)
        events = [pb.DocumentEvent(seq=1, state_changed=changed), pb.DocumentEvent(seq=2, progress=progress), last]
        for event in events[request.after_seq :]:
            if self.cut_after and event.seq > self.cut_after:
                self.cut_after = 0
                return
            yield event
        document.state = pb.DOCUMENT_STATE_FAILED if self.fail_with else pb.DOCUMENT_STATE_READY
        document.chunk_count = 4


@dataclass
class FakeJobs(job_pb2_grpc.JobServiceServicer):
    """Has jobs, one a page, and replays a dead one a call."""

    jobs: list[job_pb2.Job] = field(default_factory=list)
    letters: list[job_pb2.DeadLetter] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:
        del context
        found = [each for each in self.jobs if request.state in (0, each.state)]
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(found) else ""
        return job_pb2.ListJobsResponse(jobs=found[start : start + 1], next_page_token=token)

    async def ListDeadLetters(
        self, request: job_pb2.ListDeadLettersRequest, context: Context
    ) -> job_pb2.ListDeadLettersResponse:
        del request, context
        return job_pb2.ListDeadLettersResponse(dead_letters=self.letters)

    async def ReplayDeadLetters(
        self, request: job_pb2.ReplayDeadLettersRequest, context: Context
    ) -> job_pb2.ReplayDeadLettersResponse:
        self.keys += [value for key, value in context.invocation_metadata() or () if key == "idempotency-key"]
        wanted = [each for each in self.letters if request.filter.reason in ("", each.reason)]
        wanted = [each for each in wanted if not request.job_ids or each.job_id in request.job_ids]
        if request.job_ids and not wanted:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
        for letter in wanted[:1]:
            self.letters.remove(letter)
        return job_pb2.ReplayDeadLettersResponse(job_ids=[each.job_id for each in wanted[:1]], more=len(wanted) > 1)


@dataclass
class FakeChat(chat_pb2_grpc.ChatServiceServicer):
    """Streams the events it is given; refuses when it has a reason to."""

    events: list[chat_pb2.ChatEvent] = field(default_factory=list)
    refuse_with: str = ""
    requests: list[chat_pb2.ChatRequest] = field(default_factory=list)

    async def StreamChat(self, request: chat_pb2.ChatRequest, context: Context) -> AsyncIterator[chat_pb2.ChatEvent]:
        self.requests.append(request)
        if self.refuse_with:
            await refuse(context, grpc.StatusCode.NOT_FOUND, self.refuse_with)
        for event in self.events:
            yield event


@dataclass
class FakeAgents(agent_pb2_grpc.AgentServiceServicer):
    """Keeps agents without checking them, one a page, and what it was asked."""

    kept: dict[str, agent_pb2.Agent] = field(default_factory=dict)
    updates: list[agent_pb2.UpdateAgentRequest] = field(default_factory=list)
    rollbacks: list[agent_pb2.RollbackAgentRequest] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def CreateAgent(self, request: agent_pb2.CreateAgentRequest, context: Context) -> agent_pb2.Agent:
        self.keys += [str(value) for key, value in context.invocation_metadata() or () if key == "idempotency-key"]
        made = agent_pb2.Agent()
        made.CopyFrom(request.agent)
        made.id, made.revision, made.etag = made.id or "made", 1, "1"
        self.kept[made.id] = made
        return made

    async def GetAgent(self, request: agent_pb2.GetAgentRequest, context: Context) -> agent_pb2.Agent:
        if request.agent_id not in self.kept:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")
        return self.kept[request.agent_id]

    async def ListAgents(self, request: agent_pb2.ListAgentsRequest, context: Context) -> agent_pb2.ListAgentsResponse:
        del context
        found, start = list(self.kept.values()), int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(found) else ""
        return agent_pb2.ListAgentsResponse(agents=found[start : start + 1], next_page_token=token)

    async def UpdateAgent(self, request: agent_pb2.UpdateAgentRequest, context: Context) -> agent_pb2.Agent:
        del context
        self.updates.append(request)
        return agent_pb2.Agent(id=request.agent.id, revision=2)

    async def DeleteAgent(
        self, request: agent_pb2.DeleteAgentRequest, context: Context
    ) -> agent_pb2.DeleteAgentResponse:
        del context
        del self.kept[request.agent_id]
        return agent_pb2.DeleteAgentResponse()

    async def ListAgentRevisions(
        self, request: agent_pb2.ListAgentRevisionsRequest, context: Context
    ) -> agent_pb2.ListAgentRevisionsResponse:
        del context
        return agent_pb2.ListAgentRevisionsResponse(revisions=[self.kept[request.agent_id]])

    async def RollbackAgent(self, request: agent_pb2.RollbackAgentRequest, context: Context) -> agent_pb2.Agent:
        del context
        self.rollbacks.append(request)
        return agent_pb2.Agent(id=request.agent_id, revision=3)


@dataclass
class FakeChatJobs(chat_job_pb2_grpc.ChatJobServiceServicer):
    """Has one job, whose watch is cut once after so many events."""

    events: list[chat_pb2.ChatEvent] = field(default_factory=list)
    cut_after: int = 0
    keys: list[str] = field(default_factory=list)
    watches: list[int] = field(default_factory=list)

    async def CreateChatJob(self, request: chat_pb2.ChatRequest, context: Context) -> pb_jobs.CreateChatJobResponse:
        del request
        self.keys += [str(value) for key, value in context.invocation_metadata() or () if key == "idempotency-key"]
        return pb_jobs.CreateChatJobResponse(job_id="j1", conversation_id="c1")

    async def WatchChatJob(
        self, request: pb_jobs.WatchChatJobRequest, context: Context
    ) -> AsyncIterator[chat_pb2.ChatEvent]:
        self.watches.append(request.after_seq)
        for event in self.events[request.after_seq :]:
            if self.cut_after and event.seq > self.cut_after:
                self.cut_after = 0
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            yield event

    async def ListChatJobs(
        self, request: pb_jobs.ListChatJobsRequest, context: Context
    ) -> pb_jobs.ListChatJobsResponse:
        del request, context
        return pb_jobs.ListChatJobsResponse(
            jobs=[pb_jobs.ChatJob(job_id="j1", status=pb_jobs.CHAT_JOB_STATUS_RUNNING, attempt=2)]
        )


@dataclass
class FakeMemories(memory_pb2_grpc.MemoryServiceServicer):
    """Keeps memories, one a page, and what it was asked."""

    kept: list[memory_pb2.Memory] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)

    async def CreateMemory(
        self, request: memory_pb2.CreateMemoryRequest, context: Context
    ) -> memory_pb2.CreateMemoryResponse:
        del context
        self.asked.append(request)
        known = [each for each in self.kept if each.content == request.memory.content]
        if not known:
            request.memory.id = f"m{len(self.kept)}"
            self.kept.append(request.memory)
        return memory_pb2.CreateMemoryResponse(memory=(known or self.kept)[-1], created=not known)

    async def ListMemories(
        self, request: memory_pb2.ListMemoriesRequest, context: Context
    ) -> memory_pb2.ListMemoriesResponse:
        del context
        self.asked.append(request)
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(self.kept) else ""
        return memory_pb2.ListMemoriesResponse(memories=self.kept[start : start + 1], next_page_token=token)

    async def SearchMemories(
        self, request: memory_pb2.SearchMemoriesRequest, context: Context
    ) -> memory_pb2.SearchMemoriesResponse:
        del context
        self.asked.append(request)
        results = [memory_pb2.FoundMemory(memory=each, score=0.5) for each in self.kept]
        return memory_pb2.SearchMemoriesResponse(results=results)

    async def ExplainMemory(
        self, request: memory_pb2.ExplainMemoryRequest, context: Context
    ) -> memory_pb2.ExplainMemoryResponse:
        found = [each for each in self.kept if each.id == request.memory_id]
        if not found:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "MEMORY_NOT_FOUND")
        return memory_pb2.ExplainMemoryResponse(
            memory=found[0], standing="superseded", source_text="I moved.", superseded_by=self.kept[-1]
        )

    async def ForgetMemories(
        self, request: memory_pb2.ForgetMemoriesRequest, context: Context
    ) -> memory_pb2.MemoryReceipt:
        del context
        self.asked.append(request)
        return memory_pb2.MemoryReceipt(id="r1", memories=len(self.kept))


@dataclass
class FakeApprovals(approval_pb2_grpc.ApprovalServiceServicer):
    """Has approvals, one a page, decides them, and watches those there are."""

    approvals: list[approval_pb2.Approval] = field(default_factory=list)
    decisions: list[approval_pb2.DecideApprovalRequest] = field(default_factory=list)
    reassigned: list[approval_pb2.ReassignApprovalRequest] = field(default_factory=list)
    refuse_with: str = ""
    keys: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    async def ListApprovals(
        self, request: approval_pb2.ListApprovalsRequest, context: Context
    ) -> approval_pb2.ListApprovalsResponse:
        del context
        found = [each for each in self.approvals if each.state == request.state]
        found = [each for each in found if not request.assignee or each.assignee in ("", request.assignee)]
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(found) else ""
        return approval_pb2.ListApprovalsResponse(approvals=found[start : start + 1], next_page_token=token)

    async def GetApproval(self, request: approval_pb2.GetApprovalRequest, context: Context) -> approval_pb2.Approval:
        self.shown.append(request.approval_id)
        for each in self.approvals:
            if each.id == request.approval_id:
                return each
        await refuse(context, grpc.StatusCode.NOT_FOUND, "APPROVAL_NOT_FOUND")
        raise AssertionError

    async def DecideApproval(
        self, request: approval_pb2.DecideApprovalRequest, context: Context
    ) -> approval_pb2.Approval:
        self.keys += [str(value) for key, value in context.invocation_metadata() or () if key == "idempotency-key"]
        self.decisions.append(request)
        if self.refuse_with:
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, self.refuse_with)
        return approval_pb2.Approval(id=request.approval_id, state=request.decision + 1)

    async def ReassignApproval(
        self, request: approval_pb2.ReassignApprovalRequest, context: Context
    ) -> approval_pb2.Approval:
        del context
        self.reassigned.append(request)
        return approval_pb2.Approval(id=request.approval_id, assignee=request.assignee)

    async def WatchApprovals(
        self, request: approval_pb2.WatchApprovalsRequest, context: Context
    ) -> AsyncIterator[approval_pb2.ApprovalEvent]:
        del request, context
        yield approval_pb2.ApprovalEvent(heartbeat=chat_pb2.Heartbeat())
        for each in self.approvals:
            yield approval_pb2.ApprovalEvent(approval=each)


@dataclass
class FakeMesh:
    url: str
    documents: FakeDocuments
    chat: FakeChat
    jobs: FakeJobs
    chat_jobs: FakeChatJobs
    agents: FakeAgents = field(default_factory=FakeAgents)
    memories: FakeMemories = field(default_factory=FakeMemories)
    approvals: FakeApprovals = field(default_factory=FakeApprovals)
    crews: FakeCrews = field(default_factory=FakeCrews)
    flows: FakeFlows = field(default_factory=FakeFlows)
    runs: FakeRuns = field(default_factory=FakeRuns)


@pytest.fixture
async def mesh() -> AsyncIterator[FakeMesh]:
    server = grpc.aio.server()
    documents, chat, jobs, chat_jobs = FakeDocuments(), FakeChat(), FakeJobs(), FakeChatJobs()
    agents = FakeAgents()
    agent_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
    memories = FakeMemories()
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(memories, server)
    approvals = FakeApprovals()
    approval_pb2_grpc.add_ApprovalServiceServicer_to_server(approvals, server)
    crews, flows, runs = FakeCrews(), FakeFlows(), FakeRuns()
    crew_pb2_grpc.add_CrewServiceServicer_to_server(crews, server)
    flow_pb2_grpc.add_FlowServiceServicer_to_server(flows, server)
    run_pb2_grpc.add_RunServiceServicer_to_server(runs, server)
    chat_job_pb2_grpc.add_ChatJobServiceServicer_to_server(chat_jobs, server)
    document_pb2_grpc.add_DocumentServiceServicer_to_server(documents, server)
    chat_pb2_grpc.add_ChatServiceServicer_to_server(chat, server)
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    url = f"http://127.0.0.1:{port}"
    yield FakeMesh(
        url=url,
        documents=documents,
        chat=chat,
        jobs=jobs,
        chat_jobs=chat_jobs,
        agents=agents,
        memories=memories,
        approvals=approvals,
        crews=crews,
        flows=flows,
        runs=runs,
    )
    await server.stop(None)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> Callable[[Sequence[str]], tuple[int, str, str]]:
    def command(arguments: Sequence[str]) -> tuple[int, str, str]:
        monkeypatch.setenv("LOREMESH_HOME", str(tmp_path / "home"))
        monkeypatch.setattr("sys.argv", ["loremesh", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return command
