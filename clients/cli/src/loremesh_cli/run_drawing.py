"""How a run looks at a terminal: live as a tree, afterwards as a table."""

from datetime import datetime

from loremesh.agent.v1 import chat_pb2
from loremesh.crew.v1 import run_pb2 as pb
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from loremesh_cli.output import printable
from loremesh_cli.run_board import Board, Row

_MARKS = {
    pb.TASK_STATUS_PENDING: ("·", "dim"),
    pb.TASK_STATUS_IN_PROGRESS: ("▶", "cyan"),
    pb.TASK_STATUS_WAITING: ("?", "bold yellow"),
    pb.TASK_STATUS_RETRYING: ("↻", "yellow"),
    pb.TASK_STATUS_COMPLETED: ("✓", "green"),
    pb.TASK_STATUS_INCOMPLETE: ("◐", "yellow"),
    pb.TASK_STATUS_FAILED: ("✗", "red"),
    pb.TASK_STATUS_SKIPPED: ("-", "dim"),
    pb.TASK_STATUS_CANCELLED: ("-", "dim"),
}


def live(board: Board, *, now: datetime) -> Tree:
    """The run as a tree: tasks and states with who is at it, for how long, and what it took."""
    tokens = board.tokens or sum(row.tokens for row in board.all_rows())
    heading = Text.assemble((board.name or "run", "bold"), (f"  {board.run_id}  ", "dim"), run_status(board.status))
    heading.append(_spent(board.began, board.ended, tokens, now=now), style="dim")
    tree = Tree(heading, guide_style="dim")
    for row in board.rows:
        _draw(tree, row, now=now)
    return tree


def statistics(run: pb.Run) -> Table:
    """What each task took, and all of them together."""
    table = Table("task", "agent", "status", "attempts", "seconds", "tokens", "tool calls", "cost, USD", box=None)
    for task in run.tasks:
        called = f"{task.name} (visit {task.visit})" if task.visit > 1 else task.name
        status = task_status(task.status) + (f": {task.reason}" if task.reason else "")
        row = (called, task.agent, status, str(task.attempts or ""), _seconds(task), *_taken(task.usage))
        table.add_row(*(Text(printable(each)) for each in row))
    table.add_row("all", "", "", "", "", *_taken(run.usage), style="bold")
    return table


def run_status(status: pb.RunStatus.ValueType) -> str:
    """A run's status, for people."""
    return pb.RunStatus.Name(status).removeprefix("RUN_STATUS_").lower().replace("_", " ")


def task_status(status: pb.TaskStatus.ValueType) -> str:
    """A task's status, for people."""
    return pb.TaskStatus.Name(status).removeprefix("TASK_STATUS_").lower().replace("_", " ")


def _draw(tree: Tree, row: Row, *, now: datetime) -> None:
    mark, style = _MARKS.get(row.status, ("·", "dim"))
    label = Text.assemble((f"{mark} {row.called}", style), (f"  {row.agent}" if row.agent else "", "bold"))
    label.append(f"  {task_status(row.status)}{_spent(row.began, row.ended, row.tokens, now=now)}", style="dim")
    if row.attempt > 1:
        label.append(f"  attempt {row.attempt}", style="yellow")
    if row.note:
        label.append(f"  {printable(row.note)}", style="dim")
    branch = tree.add(label)
    for each in (*row.below, *(row.child.rows if row.child else ())):
        _draw(branch, each, now=now)


def _spent(began: datetime | None, ended: datetime | None, tokens: int, *, now: datetime) -> str:
    seconds = f"  {max(0.0, ((ended or now) - began).total_seconds()):.1f} s" if began else ""
    return seconds + (f"  {tokens:,} tokens" if tokens else "")


def _seconds(task: pb.TaskResult) -> str:
    if not (task.HasField("start_time") and task.HasField("finish_time")):
        return ""
    return f"{(task.finish_time.ToDatetime() - task.start_time.ToDatetime()).total_seconds():.1f}"


def _taken(usage: chat_pb2.Usage) -> tuple[str, str, str]:
    cost = f"{usage.cost_micros / 1_000_000:.6f}".rstrip("0") if usage.cost_micros else ""
    return f"{usage.input_tokens + usage.output_tokens:,}", str(usage.tool_calls or ""), cost
