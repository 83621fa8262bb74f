"""`{name}` in the texts of flows: inputs and variables by their names, `{output}`, and `{output.STATE}`.

Braces mean what they mean in crews' texts, see `placeholders`.
"""

import re
from collections.abc import Mapping
from typing import Any

from loremesh_crew.domain.placeholders import as_text

OUTPUT = "output"
# Characters in all texts of a state.
MAX_FILLED = 1_000_000
_OF_STATE = f"{OUTPUT}."
# Of a run of braces only its beginning is looked at, and nothing is given back: time is linear in the text.
_BRACED = re.compile(r"(?<!\{)(\{++)(output\.[A-Za-z0-9][A-Za-z0-9_-]{0,63}+|[A-Za-z_][A-Za-z0-9_-]{0,63}+)(\}++)")


def names(text: str) -> tuple[str, ...]:
    """The placeholders of a text, each once, in their order: `output.STATE` among them."""
    found = {match[2]: None for match in _BRACED.finditer(text) if _pairs(match) % 2}
    return tuple(found)


def state_of(name: str) -> str:
    """The state that a placeholder asks for the output of; empty for any other."""
    return name.removeprefix(_OF_STATE) if name.startswith(_OF_STATE) else ""


class TextTooLong(Exception):
    """What is put in is more than may be."""


class Filler:
    """Puts values in place of their names, so many characters at most in all texts together."""

    def __init__(self, values: Mapping[str, Any], *, limit: int = MAX_FILLED) -> None:
        self._values = values
        self._left = limit

    def text(self, text: str) -> str:
        """The text with values: texts as they are, all else as compact JSON; raises TextTooLong.

        A name without a value stays as it is. What is put in is not looked at again.
        """
        self._take(len(text))
        return _BRACED.sub(self._put, text)

    def value(self, value: Any) -> Any:
        """A JSON value with its texts filled, but for the keys of its maps; raises TextTooLong.

        A text that is nothing but a placeholder becomes its value, whatever that is.
        """
        match value:
            case str():
                name = _alone(value)
                if name not in self._values:
                    return self.text(value)
                self._take(len(as_text(self._values[name])))
                return self._values[name]
            case Mapping():
                return {key: self.value(each) for key, each in value.items()}
            case list() | tuple():
                return [self.value(each) for each in value]
        return value

    def _put(self, match: re.Match[str]) -> str:
        pairs, name = _pairs(match), match[2]
        if pairs % 2 and name not in self._values:
            return match[0]
        half = pairs // 2
        left, right = "{" * (len(match[1]) - pairs + half), "}" * (len(match[3]) - pairs + half)
        inner = as_text(self._values[name]) if pairs % 2 else name
        self._take(len(inner))
        return f"{left}{inner}{right}"

    def _take(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise TextTooLong


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with other names in its placeholders, and all else as it was."""

    def put(match: re.Match[str]) -> str:
        return f"{match[1]}{names.get(match[2], match[2]) if _pairs(match) % 2 else match[2]}{match[3]}"

    return _BRACED.sub(put, text)


def names_within(value: Any) -> tuple[str, ...]:
    """The placeholders of all texts in a JSON value, but for the keys of its maps."""
    match value:
        case str():
            return names(value)
        case Mapping():
            return tuple(dict.fromkeys(name for each in value.values() for name in names_within(each)))
        case list() | tuple():
            return tuple(dict.fromkeys(name for each in value for name in names_within(each)))
    return ()


def _pairs(match: re.Match[str]) -> int:
    return min(len(match[1]), len(match[3]))


def _alone(text: str) -> str:
    """The name of the placeholder that is all of the text; empty where it is not."""
    match = _BRACED.fullmatch(text)
    return match[2] if match and len(match[1]) == len(match[3]) == 1 else ""
