# ruff: noqa: INP001 - a script, no package
"""A team's own tools for agents: two calls of ToolService, served over gRPC.

Run it with `python examples/tool_service.py 127.0.0.1:7000`, then register it as docs/tools.md says.
"""

import asyncio
import sys
from typing import Any

import grpc
from google.protobuf import json_format
from grpc import aio
from loremesh.agent.v1 import agent_pb2
from loremesh.agent.v1 import tool_pb2 as pb
from loremesh.agent.v1.tool_pb2_grpc import ToolServiceServicer, add_ToolServiceServicer_to_server

ORDERS = {"A-1": "shipped", "A-2": "waiting for payment"}
ORDER_NUMBER = {
    "type": "object",
    "properties": {"order": {"type": "string", "description": "Number of the order, such as A-1."}},
    "required": ["order"],
    "additionalProperties": False,
}


def described(name: str, description: str, effect: "agent_pb2.ToolEffect.ValueType") -> pb.ToolDescription:
    """A tool that takes the number of an order."""
    tool = pb.ToolDescription(name=name, description=description, effect=effect)
    json_format.ParseDict(ORDER_NUMBER, tool.input_schema)
    return tool


class OrderTools(ToolServiceServicer):
    """Looks orders up, and cancels them."""

    def __init__(self) -> None:
        self._answered: dict[str, pb.CallToolResponse] = {}

    async def DescribeTools(  # noqa: N802
        self, request: pb.DescribeToolsRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.DescribeToolsResponse:
        """The two of them; asked before each call, so it answers from memory."""
        del request, context
        return pb.DescribeToolsResponse(
            tools=[
                described("order_state", "Tells the state of an order.", agent_pb2.TOOL_EFFECT_READ_ONLY),
                described("cancel_order", "Cancels an order.", agent_pb2.TOOL_EFFECT_IDEMPOTENT),
            ]
        )

    async def CallTool(  # noqa: N802
        self, request: pb.CallToolRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.CallToolResponse:
        """Whose orders they are would be told by `x-loremesh-tenant` in the metadata."""
        order = json_format.MessageToDict(request.arguments).get("order", "")
        if order not in ORDERS:
            # The model is told so, and may ask the user.
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no order {order!r}.")
        match request.name:
            case "order_state":
                return pb.CallToolResponse(content=ORDERS[order])
            case _:
                # The same call again is answered as before and does nothing more: keep this with your orders.
                if request.idempotency_key not in self._answered:
                    self._answered[request.idempotency_key] = self._cancel(order)
                return self._answered[request.idempotency_key]

    def _cancel(self, order: str) -> pb.CallToolResponse:
        if ORDERS[order] == "shipped":
            return pb.CallToolResponse(content="It is on its way already.", failed=True)
        ORDERS[order] = "cancelled"
        return pb.CallToolResponse(content="It is cancelled.")


async def serve(address: str) -> None:
    """Serve until the process is ended."""
    server = aio.server()
    add_ToolServiceServicer_to_server(OrderTools(), server)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:2] or ["127.0.0.1:7000"]))
