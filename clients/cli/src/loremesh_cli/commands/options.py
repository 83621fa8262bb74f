"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from loremesh_cli.mesh import lifecycle
from loremesh_cli.mesh.home import Home, default_root

DEFAULT_URL = "http://127.0.0.1:8080"

DataDir = Annotated[
    Path | None,
    typer.Option(help="The mesh's data directory; $LOREMESH_HOME or .loremesh in the clone by default."),
]
Url = Annotated[
    str,
    typer.Option(envvar="LOREMESH_URL", help="The mesh's front door; the one that runs here by default."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of words for people.")]
Store = Annotated[str, typer.Option("--store", help="The vector store.")]


def home_of(data_dir: Path | None) -> Home:
    """Return the data directory meant."""
    return Home(data_dir or default_root())


def url_of(url: str) -> str:
    """Return the front door meant: the named one, else that of the mesh which runs here."""
    if url:
        return url if "://" in url else f"http://{url}"
    mesh = lifecycle.find(home_of(None))
    state = mesh.state() if mesh else None
    return state.gateway_url if state else DEFAULT_URL
