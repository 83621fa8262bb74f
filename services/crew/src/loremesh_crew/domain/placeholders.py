"""`{name}` in the texts of definitions, and what is put in its place.

Braces around a name count in pairs, as in Python's own templates: `{topic}` is a placeholder, `{{topic}}` the text
`{topic}`, `{{{topic}}}` a value in braces. All other braces are text, so that JSON can be shown as an example.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

# Of a run of braces only its beginning is looked at, and nothing is given back: time is linear in the text.
_BRACED = re.compile(r"(?<!\{)(\{++)([A-Za-z_][A-Za-z0-9_-]{0,63}+)(\}++)")


def names(text: str) -> tuple[str, ...]:
    """The placeholders of a text, each once, in their order."""
    found = {match[2]: None for match in _BRACED.finditer(text) if _pairs(match) % 2}
    return tuple(found)


def fill(text: str, values: Mapping[str, Any]) -> str:
    """The text with the values in place of their names; texts as they are, all else as compact JSON.

    A name without a value stays as it is. What is put in is not looked at again.
    """

    def put(match: re.Match[str]) -> str:
        pairs, name = _pairs(match), match[2]
        if pairs % 2 and name not in values:
            return match[0]
        half = pairs // 2
        left, right = "{" * (len(match[1]) - pairs + half), "}" * (len(match[3]) - pairs + half)
        return f"{left}{as_text(values[name]) if pairs % 2 else name}{right}"

    return _BRACED.sub(put, text)


def as_text(value: Any) -> str:
    """A JSON value as it stands in a text."""
    return value if isinstance(value, str) else json.dumps(_whole(value), ensure_ascii=False, separators=(",", ":"))


def _pairs(match: re.Match[str]) -> int:
    return min(len(match[1]), len(match[3]))


def _whole(value: Any) -> Any:
    """Whole numbers written as such: protobuf's JSON knows doubles only."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case Mapping():
            return {key: _whole(each) for key, each in value.items()}
        case list() | tuple():
            return [_whole(each) for each in value]
    return value
