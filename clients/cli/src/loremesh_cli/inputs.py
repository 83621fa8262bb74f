"""Inputs of a run, as they are given on the command line."""

from collections.abc import Sequence
from pathlib import Path

from google.protobuf.struct_pb2 import Struct

from loremesh_cli import field_files
from loremesh_cli.errors import UsageError


def inputs_of(pairs: Sequence[str], *, file: Path | None = None, example: Struct | None = None) -> Struct:
    """The inputs of `NAME=TEXT` and `NAME=@FILE`, which go before a file's fields, which go before an example's."""
    found = Struct()
    if example is not None:
        found.MergeFrom(example)
    if file is not None:
        fields = field_files.read(file, of="the inputs")
        found.MergeFrom(field_files.parse(fields, Struct(), what="input"))
    found.update(dict(map(_pair, pairs)))
    return found


def _pair(text: str) -> tuple[str, str]:
    name, given, value = text.partition("=")
    if not given or not name:
        raise UsageError(f"write an input as NAME=TEXT, not {text!r}", reason="INPUT_INVALID")
    if not value.startswith("@"):
        return name, value
    try:
        return name, Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{value[1:]} cannot be read: {error}", reason="FILE_INVALID") from error
