"""Agents as files: JSON, YAML or TOML with the fields of the contract."""

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from loremesh.agent.v1 import agent_pb2 as pb

from loremesh_cli.errors import UsageError

# JSON may also be written in camel case.
_NAMES = {field.json_name: field.name for field in pb.Agent.DESCRIPTOR.fields}
_OUTPUT_ONLY = ("revision", "create_time", "update_time")


def read(path: Path) -> dict[str, Any]:
    """The fields in a file, `-` for JSON or YAML from standard input, without those only the mesh can set."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        # JSON is YAML.
        fields = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {error}", reason="FILE_INVALID") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{path} must hold the fields of an agent", reason="FILE_INVALID")
    named = {_NAMES.get(name, str(name)): value for name, value in fields.items()}
    return {name: value for name, value in named.items() if name not in _OUTPUT_ONLY}


def parse(fields: Mapping[str, Any]) -> pb.Agent:
    """The agent that the fields describe."""
    try:
        # Dates of YAML and TOML become the text they were.
        return ParseDict(json.loads(json.dumps(fields, default=str)), pb.Agent())
    except (ParseError, ValueError) as error:
        raise UsageError(f"this is no agent: {error}", reason="AGENT_INVALID") from error


def show(agent: pb.Agent) -> str:
    """The agent as YAML, which `read` takes."""
    fields = MessageToDict(agent, preserving_proto_field_name=True)
    return yaml.safe_dump(fields, allow_unicode=True, sort_keys=False, default_flow_style=False).rstrip()
