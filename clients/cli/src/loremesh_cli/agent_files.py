"""Agents as files: JSON, YAML or TOML with the fields of the contract."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loremesh.agent.v1 import agent_pb2 as pb

from loremesh_cli import field_files

# JSON may also be written in camel case.
_NAMES = {field.json_name: field.name for field in pb.Agent.DESCRIPTOR.fields}
_OUTPUT_ONLY = ("revision", "create_time", "update_time")


def read(path: Path) -> dict[str, Any]:
    """The fields in a file, `-` for JSON or YAML from standard input, without those only the mesh can set."""
    fields = field_files.read(path, of="an agent")
    named = {_NAMES.get(name, str(name)): value for name, value in fields.items()}
    return {name: value for name, value in named.items() if name not in _OUTPUT_ONLY}


def parse(fields: Mapping[str, Any]) -> pb.Agent:
    """The agent that the fields describe."""
    return field_files.parse(fields, pb.Agent(), what="agent")


def show(agent: pb.Agent) -> str:
    """The agent as YAML, which `read` takes."""
    return field_files.show(agent)
