"""The `loremesh` command."""

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from loremesh_cli.commands import (
    agents,
    approvals,
    chat_jobs,
    crews,
    documents,
    flows,
    jobs,
    lifecycle,
    memories,
    questions,
    runs,
)
from loremesh_cli.commands.doctor import doctor
from loremesh_cli.commands.logs import logs
from loremesh_cli.commands.status import status
from loremesh_cli.errors import CommandError, UsageError
from loremesh_cli.files import legible
from loremesh_cli.output import Output

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Loremesh: documents in, sourced answers out. Statuses: 0 done, 1 failed, 2 asked wrongly, 3 no mesh answers.",
)
for command in (
    lifecycle.up, lifecycle.down, status, logs, doctor,
    documents.ingest, questions.ask, questions.chat, questions.search, chat_jobs.chat_jobs, jobs.jobs, jobs.replay,
):  # fmt: skip
    app.command()(command)
app.add_typer(agents.app, name="agents")
app.add_typer(documents.app, name="documents")
app.add_typer(memories.app, name="memories")
app.add_typer(approvals.app, name="approvals")
app.add_typer(crews.app, name="crew")
app.add_typer(flows.app, name="flow")
app.add_typer(runs.app, name="run")


def main() -> None:
    """Run the command line; a failure is one clear message and a status, never a traceback of ours."""
    try:
        _check_text(sys.argv[1:])
        app()
    except CommandError as error:
        output = Output(as_json="--json" in sys.argv)
        output.result({"error": {"reason": error.reason, "message": str(error)}})
        print(f"loremesh: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _check_text(arguments: Sequence[str]) -> None:
    """Raise UsageError for what is neither UTF-8 nor the path of something."""
    for each in arguments:
        if not each.isascii() and legible(each) != each and not Path(each).exists():
            message = f"{legible(each)}: not UTF-8"
            raise UsageError(message, reason="NOT_UTF8")
