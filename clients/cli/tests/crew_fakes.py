"""Crews, flows and runs of a front door in this process."""

# ruff: noqa: N802 - rpcs have their names

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from loremesh.crew.v1 import crew_pb2, crew_pb2_grpc, flow_pb2, flow_pb2_grpc, run_pb2, run_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class FakeCrews(crew_pb2_grpc.CrewServiceServicer):
    """Keeps crews without checking them, one a page, and what it was asked."""

    kept: dict[str, crew_pb2.Crew] = field(default_factory=dict)
    violations: list[crew_pb2.Violation] = field(default_factory=list)
    imports: list[crew_pb2.ImportCrewRequest] = field(default_factory=list)
    kickoffs: list[crew_pb2.KickoffCrewRequest] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def CreateCrew(self, request: crew_pb2.CreateCrewRequest, context: Context) -> crew_pb2.Crew:
        self.keys += keys_of(context)
        made = crew_pb2.Crew()
        made.CopyFrom(request.crew)
        made.id, made.revision = made.id or "made", 1
        self.kept[made.id] = made
        return made

    async def GetCrew(self, request: crew_pb2.GetCrewRequest, context: Context) -> crew_pb2.Crew:
        if request.crew_id not in self.kept:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "CREW_NOT_FOUND")
        return self.kept[request.crew_id]

    async def ListCrews(self, request: crew_pb2.ListCrewsRequest, context: Context) -> crew_pb2.ListCrewsResponse:
        del context
        found, start = list(self.kept.values()), int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(found) else ""
        return crew_pb2.ListCrewsResponse(crews=found[start : start + 1], next_page_token=token)

    async def DeleteCrew(self, request: crew_pb2.DeleteCrewRequest, context: Context) -> crew_pb2.DeleteCrewResponse:
        del context
        del self.kept[request.crew_id]
        return crew_pb2.DeleteCrewResponse()

    async def ValidateCrew(
        self, request: crew_pb2.ValidateCrewRequest, context: Context
    ) -> crew_pb2.ValidateCrewResponse:
        del request, context
        return crew_pb2.ValidateCrewResponse(violations=self.violations)

    async def ImportCrew(self, request: crew_pb2.ImportCrewRequest, context: Context) -> crew_pb2.Crew:
        self.keys += keys_of(context)
        self.imports.append(request)
        return crew_pb2.Crew(id=request.crew_id or "made", revision=1, name=request.name)

    async def KickoffCrew(self, request: crew_pb2.KickoffCrewRequest, context: Context) -> run_pb2.Run:
        self.keys += keys_of(context)
        self.kickoffs.append(request)
        return run_pb2.Run(id="r1", definition_id=request.crew_id, status=run_pb2.RUN_STATUS_QUEUED)


@dataclass
class FakeFlows(flow_pb2_grpc.FlowServiceServicer):
    """Keeps flows likewise."""

    kept: dict[str, flow_pb2.Flow] = field(default_factory=dict)
    violations: list[crew_pb2.Violation] = field(default_factory=list)
    kickoffs: list[flow_pb2.KickoffFlowRequest] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def CreateFlow(self, request: flow_pb2.CreateFlowRequest, context: Context) -> flow_pb2.Flow:
        self.keys += keys_of(context)
        made = flow_pb2.Flow()
        made.CopyFrom(request.flow)
        made.id, made.revision = made.id or "made", 1
        self.kept[made.id] = made
        return made

    async def GetFlow(self, request: flow_pb2.GetFlowRequest, context: Context) -> flow_pb2.Flow:
        if request.flow_id not in self.kept:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "FLOW_NOT_FOUND")
        return self.kept[request.flow_id]

    async def ListFlows(self, request: flow_pb2.ListFlowsRequest, context: Context) -> flow_pb2.ListFlowsResponse:
        del context
        found, start = list(self.kept.values()), int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(found) else ""
        return flow_pb2.ListFlowsResponse(flows=found[start : start + 1], next_page_token=token)

    async def DeleteFlow(self, request: flow_pb2.DeleteFlowRequest, context: Context) -> flow_pb2.DeleteFlowResponse:
        del context
        del self.kept[request.flow_id]
        return flow_pb2.DeleteFlowResponse()

    async def ValidateFlow(
        self, request: flow_pb2.ValidateFlowRequest, context: Context
    ) -> flow_pb2.ValidateFlowResponse:
        del request, context
        return flow_pb2.ValidateFlowResponse(violations=self.violations)

    async def KickoffFlow(self, request: flow_pb2.KickoffFlowRequest, context: Context) -> run_pb2.Run:
        self.keys += keys_of(context)
        self.kickoffs.append(request)
        return run_pb2.Run(id="r1", definition_id=request.flow_id, status=run_pb2.RUN_STATUS_QUEUED)


@dataclass
class FakeRuns(run_pb2_grpc.RunServiceServicer):
    """Tells the events it is given; `cut_after` ends a watch early once, as does `lose_after` with UNAVAILABLE.

    An event is held back until its number in `gates` is set.
    """

    runs: dict[str, run_pb2.Run] = field(default_factory=dict)
    events: dict[str, list[run_pb2.RunEvent]] = field(default_factory=dict)
    watches: list[tuple[str, int]] = field(default_factory=list)
    # Runs that are not there when they are first watched.
    late: set[str] = field(default_factory=set)
    cut_after: int = 0
    lose_after: int = 0
    gates: dict[int, Any] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    differences: list[run_pb2.ReplayDifference] = field(default_factory=list)
    diff: list[run_pb2.RunDifference] = field(default_factory=list)
    report: run_pb2.TransitionReport = field(default_factory=run_pb2.TransitionReport)
    body: bytes = b""
    children: list[run_pb2.Run] = field(default_factory=list)

    async def WatchRun(self, request: run_pb2.WatchRunRequest, context: Context) -> AsyncIterator[run_pb2.RunEvent]:
        self.watches.append((request.run_id, request.after_seq))
        if request.run_id not in self.events or request.run_id in self.late:
            self.late.discard(request.run_id)
            await refuse(context, grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
        yield run_pb2.RunEvent(run_id=request.run_id, heartbeat=run_pb2.Heartbeat())
        for event in self.events[request.run_id][request.after_seq :]:
            if self.cut_after and event.seq > self.cut_after:
                self.cut_after = 0
                return
            if self.lose_after and event.seq > self.lose_after:
                self.lose_after = 0
                await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            if gate := self.gates.get(event.seq):
                await gate.wait()
            yield event

    async def GetRun(self, request: run_pb2.GetRunRequest, context: Context) -> run_pb2.Run:
        if request.run_id not in self.runs:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
        return self.runs[request.run_id]

    async def ListRuns(self, request: run_pb2.ListRunsRequest, context: Context) -> run_pb2.ListRunsResponse:
        del context
        self.asked.append(run_pb2.ListRunsRequest.FromString(request.SerializeToString()))
        found, start = list(self.runs.values()), int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(found) else ""
        return run_pb2.ListRunsResponse(runs=found[start : start + 1], next_page_token=token)

    async def GetRunTree(self, request: run_pb2.GetRunTreeRequest, context: Context) -> run_pb2.RunTree:
        del context
        below = [run_pb2.RunTree(run=each) for each in self.children]
        return run_pb2.RunTree(run=self.runs[request.run_id], children=below)

    async def GetRunFile(self, request: run_pb2.GetRunFileRequest, context: Context) -> HttpBody:
        del context
        self.asked.append(request)
        return HttpBody(content_type="text/markdown", data=self.body)

    async def CancelRun(self, request: run_pb2.CancelRunRequest, context: Context) -> run_pb2.Run:
        del context
        self.asked.append(request)
        return run_pb2.Run(id=request.run_id, status=run_pb2.RUN_STATUS_CANCELLING)

    async def PauseRun(self, request: run_pb2.PauseRunRequest, context: Context) -> run_pb2.Run:
        del context
        self.asked.append(request)
        return run_pb2.Run(id=request.run_id, status=run_pb2.RUN_STATUS_INTERRUPTED)

    async def ResumeRun(self, request: run_pb2.ResumeRunRequest, context: Context) -> run_pb2.Run:
        del context
        self.asked.append(request)
        return run_pb2.Run(id=request.run_id, status=run_pb2.RUN_STATUS_IN_PROGRESS)

    async def SignalRun(self, request: run_pb2.SignalRunRequest, context: Context) -> run_pb2.Run:
        del context
        self.asked.append(request)
        return run_pb2.Run(id=request.run_id, status=run_pb2.RUN_STATUS_IN_PROGRESS)

    async def ReplayRun(self, request: run_pb2.ReplayRunRequest, context: Context) -> run_pb2.ReplayRunResponse:
        del request, context
        return run_pb2.ReplayRunResponse(decisions=7, differences=self.differences)

    async def ForkRun(self, request: run_pb2.ForkRunRequest, context: Context) -> run_pb2.Run:
        self.keys += keys_of(context)
        self.asked.append(request)
        return run_pb2.Run(id="forked", status=run_pb2.RUN_STATUS_QUEUED)

    async def DiffRuns(self, request: run_pb2.DiffRunsRequest, context: Context) -> run_pb2.DiffRunsResponse:
        del context
        self.asked.append(request)
        return run_pb2.DiffRunsResponse(differences=self.diff)

    async def ExportRun(self, request: run_pb2.ExportRunRequest, context: Context) -> HttpBody:
        del context
        self.asked.append(request)
        return HttpBody(content_type="text/plain", data=self.body)

    async def ExplainTransition(
        self, request: run_pb2.ExplainTransitionRequest, context: Context
    ) -> run_pb2.ExplainTransitionResponse:
        del context
        self.asked.append(request)
        return run_pb2.ExplainTransitionResponse(report=self.report)


def keys_of(context: Context) -> list[str]:
    """The idempotency keys that a request came with."""
    return [str(value) for key, value in context.invocation_metadata() or () if key == "idempotency-key"]


async def refuse(context: Context, code: grpc.StatusCode, reason: str) -> None:
    """Refuse a call the way the services do."""
    packed = AnyMessage()
    packed.Pack(ErrorInfo(reason=reason, domain="test.loremesh.dev"))
    status = Status(code=code.value[0], message="in words", details=[packed])
    await context.abort(code, "in words", (("grpc-status-details-bin", status.SerializeToString()),))
