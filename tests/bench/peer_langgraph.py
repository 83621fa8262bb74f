"""LangGraph's own cost of a node: a chain of nodes that do nothing, with its Postgres checkpointer in sync mode.

Runs in an environment of its own, which scripts/bench makes: `peer_langgraph.py DATABASE_URL NODES ROUNDS`. Prints the
median milliseconds a node took.
"""

import statistics
import sys
import time
from typing import TypedDict

from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    """What the nodes hand on."""

    text: str


def main() -> None:
    """Measure and print."""
    url, nodes, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    graph = StateGraph(State)
    names = [f"node{number}" for number in range(nodes)]
    for name in names:
        graph.add_node(name, lambda state: {"text": state["text"]})
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    with PostgresSaver.from_conn_string(url) as saver:
        saver.setup()
        compiled = graph.compile(checkpointer=saver)
        times = []
        for number in range(rounds + 1):
            config = {"configurable": {"thread_id": str(number)}, "recursion_limit": nodes + 5}
            started = time.perf_counter()
            compiled.invoke({"text": "A line."}, config, durability="sync")
            times.append((time.perf_counter() - started) * 1000 / nodes)
    sys.stdout.write(f"{statistics.median(times[1:]):.3f}\n")


if __name__ == "__main__":
    main()
