"""The first minutes with a mesh, taken for the newcomer: real documents in, a question, an answer with its sources."""

from pathlib import Path

from loremesh.agent.v1 import chat_pb2

from loremesh_cli import files
from loremesh_cli.commands.documents import ingest_files
from loremesh_cli.commands.questions import ask_once
from loremesh_cli.errors import CommandError
from loremesh_cli.mesh.home import Home, default_root, repository
from loremesh_cli.mesh.program import script
from loremesh_cli.output import Output

QUESTION = "What is a vector store?"
MARK = "tour-taken"


def taken(home: Home) -> bool:
    """Tell whether a tour was taken on this data directory."""
    return (home.root / MARK).exists()


def take(url: str, *, home: Home, output: Output) -> None:
    """Put the project's own documents in and ask about them, through the front door like anybody.

    Raises CommandError when the answer does not come; a document that fails is said and passed over.
    """
    paths = documents(repository() or Path.cwd())
    output.say(f"Putting {len(paths)} documents in: the project's own README and docs", style="bold")
    command = command_name()
    output.say(f"$ {command} ingest README.md docs", style="dim")
    ingest_files(paths, store="", url=url, output=output)
    output.say(f"\nAsking: {QUESTION}", style="bold")
    output.say(f'$ {command} ask "{QUESTION}"', style="dim")
    ask_once(chat_pb2.ChatRequest(message=QUESTION), url=url, output=output)
    output.say()
    (home.root / MARK).touch()


def documents(clone: Path) -> list[Path]:
    """Return the documents of a clone that a reader would read."""
    wanted = [path for path in (clone / "README.md", clone / "docs") if path.exists()]
    found = [path for path in files.find(wanted) if path.suffix == ".md"]
    if not found:
        raise CommandError(f"there are no documents in {clone}", reason="NO_FILES")
    return found


def next_steps(url: str, home: Home) -> list[str]:
    """Return commands to go on with, which reach this mesh and no other."""
    ours = home.root == default_root().absolute()
    where, door = ("", "") if ours else (f" --data-dir {home.root}", f" --url {url}")
    return [
        "Try next:",
        f"  curl -F file=@README.md {url}/api/v1/documents",
        f"""  curl -N {url}/api/v1/chat/stream -H 'content-type: application/json' -d '{{"message": "{QUESTION}"}}'""",
        f"  curl '{url}/api/v1/documents/search?query=outbox&top_k=3'",
        f"  {command_name()} ingest PATH... | ask QUESTION | chat | search QUERY{door}",
        f"  {command_name()} status | logs | doctor{where}",
        f"  scripts/down{where}",
    ]


def command_name() -> str:
    """Return how to call this command from here: a newcomer's PATH does not have it."""
    installed = Path(script("loremesh"))
    return str(installed.relative_to(Path.cwd()) if installed.is_relative_to(Path.cwd()) else installed)
