"""Where a command's words go: to a person at the terminal, or as JSON to a program."""

import json
import sys
import unicodedata
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console


class Output:
    """Prints for people, unless `as_json`: then only `result` and `line` print, each one JSON value a line."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(quiet=as_json, highlight=False)

    def say(self, text: str = "", *, style: str = "") -> None:
        """Print a line for people."""
        self.console.print(printable(text), style=style, markup=False, emoji=False, soft_wrap=True)

    def hint(self, text: str) -> None:
        """Print a line for people beside the outcome, which may go to a file or a variable."""
        if not self.as_json:
            print(printable(text), file=sys.stderr, flush=True)

    def stream(self, text: str) -> None:
        """Print a piece of text as it comes, without ending the line."""
        self.console.print(printable(text), end="", markup=False, emoji=False, soft_wrap=True)

    def result(self, value: Any) -> None:
        """Print the outcome for programs."""
        if self.as_json:
            json.dump(plain(value), sys.stdout, ensure_ascii=False)
            print(flush=True)


def printable(text: str) -> str:
    """Return a text without what steers a terminal: models and strangers wrote some of it."""
    return "".join(each for each in text if each in "\n\t" or unicodedata.category(each) != "Cc")


def plain(value: Any) -> Any:
    """Return a value as JSON knows it; messages with their field names as in the contracts."""
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
