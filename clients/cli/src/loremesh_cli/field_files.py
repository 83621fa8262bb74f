"""Messages as files: JSON, YAML or TOML with the fields of their contract."""

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from loremesh_cli.errors import UsageError

M = TypeVar("M", bound=Message)


def read(path: Path, *, of: str) -> dict[str, Any]:
    """The fields in a file, `-` for JSON or YAML from standard input; `of` says of what, as `an agent`."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        # JSON is YAML.
        fields = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {error}", reason="FILE_INVALID") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{path} must hold the fields of {of}", reason="FILE_INVALID")
    return fields


def parse(fields: Mapping[str, Any], message: M, *, what: str) -> M:
    """The message with the fields; `what` says what it is, as `agent`."""
    try:
        # Dates of YAML and TOML become the text they were.
        return ParseDict(json.loads(json.dumps(fields, default=str)), message)
    except (ParseError, ValueError) as error:
        raise UsageError(f"this is no {what}: {error}", reason=f"{what.upper()}_INVALID") from error


def show(message: Message) -> str:
    """The message as YAML, which `read` takes."""
    fields = MessageToDict(message, preserving_proto_field_name=True)
    return yaml.safe_dump(fields, allow_unicode=True, sort_keys=False, default_flow_style=False).rstrip()
