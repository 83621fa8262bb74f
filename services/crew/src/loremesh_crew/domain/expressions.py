"""CEL expressions: checked against the types of what they may see, and evaluated within bounds.

The library refuses what is nested deeper than 32 and stops after 10,000 rounds of comprehensions. What one round may
cost it does not bound: here two comprehensions at most, none inside another, and what they touch is weighed first.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cel_expr_python import cel  # type: ignore[import-untyped] # it has stubs, and no py.typed

from loremesh_crew.domain.definitions import VariableType

MAX_CHARACTERS = 1000
# No names of variables: CEL's own words, and the types and macros it has at hand.
RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop"}
    | {"package", "namespace", "null", "return", "true", "var", "void", "while"}
    | {"all", "exists", "exists_one", "filter", "has", "map"}
    | {"bool", "bytes", "double", "dyn", "google", "int", "list", "null_type", "string", "type", "uint"}
)
_MAX_COMPREHENSIONS = 2
# Characters and values touched: what a variable weighs, as often as it is named, in rounds of comprehensions too.
_MAX_WEIGHT = 5_000_000
# With regular expressions, which may take a thousand steps for a character.
_MAX_WEIGHT_MATCHED = 200_000
_MAX_ROUNDS = 10_000
# Values and characters in a result.
_MAX_RESULT_VALUES = 100_000
_MAX_RESULT_CHARACTERS = 5_000_000
_MAX_DEPTH = 50
_MAX_PROBLEM = 300
_INT_LOWEST, _INT_HIGHEST = -(2**63), 2**63 - 1
_COMPREHENSIONS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_TYPES = {
    VariableType.STRING: cel.Type.STRING,
    VariableType.INT: cel.Type.INT,
    VariableType.DOUBLE: cel.Type.DOUBLE,
    VariableType.BOOL: cel.Type.BOOL,
    VariableType.LIST: cel.Type.List(cel.Type.DYN),
    VariableType.MAP: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}
# What may be where a type is expected, by what CEL calls it; a DYN is looked at when it is there.
_FITTING = {
    VariableType.STRING: ("STRING",),
    VariableType.INT: ("INT", "UINT"),
    VariableType.DOUBLE: ("DOUBLE", "INT", "UINT"),
    VariableType.BOOL: ("BOOL",),
    VariableType.LIST: ("LIST",),
    VariableType.MAP: ("MAP",),
}
_WORDS = {
    VariableType.STRING: "a string",
    VariableType.INT: "an int",
    VariableType.DOUBLE: "a double",
    VariableType.BOOL: "a bool",
    VariableType.LIST: "a list",
    VariableType.MAP: "a map",
}
_TOKEN = re.compile(
    r"""
    (?P<text> (?:[bB]?[rR]|[rR][bB]) (?: \'{3}.*?(?:\'{3}|\Z) | "{3}.*?(?:"{3}|\Z) | '[^']*'? | "[^"]*"? )
            | [bB]? (?: \'{3}(?:\\.|.)*?(?:\'{3}|\Z) | "{3}(?:\\.|.)*?(?:"{3}|\Z) )
            | [bB]? (?: '(?:\\.|[^'\\])*'? | "(?:\\.|[^"\\])*"? ) )
    | (?P<comment> //[^\n]* )
    | (?P<name> (?:\.\s*)? [A-Za-z_][A-Za-z0-9_]* )
    | (?P<bracket> [()\[\]{}] )
    """,
    re.DOTALL | re.VERBOSE,
)


class ExpressionInvalid(Exception):
    """It is no expression, not of the type expected, or takes too much."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class ExpressionFailed(Exception):
    """It gives nothing with the values there are."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(slots=True)
class _Names:
    """What an expression names, as often as it does."""

    # Variables, and those of them inside of comprehensions.
    variables: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    # How often each comprehension names what is its own.
    own: list[int] = field(default_factory=list)
    matches: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression that can be evaluated."""

    program: cel.Expression
    types: Mapping[str, VariableType]
    expected: VariableType
    names: "_Names"


def compile_expression(text: str, variables: Mapping[str, VariableType], expected: VariableType) -> Compiled:
    """The expression over these variables, giving `expected`; raises ExpressionInvalid.

    Maps have strings as keys; what is in maps and lists is looked at when it is there.
    """
    return _compiled(text, tuple(sorted(variables.items())), expected)


def evaluate(
    text: str, variables: Mapping[str, VariableType], values: Mapping[str, Any], expected: VariableType
) -> Any:
    """What the expression gives as a plain value of type `expected`: str, int, float, bool, list or dict.

    `values` has a value for each of the variables, of JSON. As CEL has it, numbers in maps and lists are double:
    `int(json.count) + 1`. Raises ExpressionInvalid, ExpressionFailed.
    """
    compiled = compile_expression(text, variables, expected)
    data = {name: _given(values[name], type_) for name, type_ in variables.items() if name in compiled.names.variables}
    _weigh(compiled, data)
    try:
        result = compiled.program.eval(data=data)
    except RuntimeError as error:
        raise ExpressionFailed(_problem(str(error))) from None
    except (TypeError, ValueError):
        # Text that is no Unicode.
        raise ExpressionFailed("a value cannot be given to it") from None
    if _kind(result.type()) == "ERROR":
        raise ExpressionFailed(_problem(str(result.value())))
    return _fitting(_plain(result, _Counter(), 0), expected)


def fits(value: Any, type_: VariableType) -> bool:
    """Whether a value of JSON may stand in a variable of this type: a whole double as an int, any int as a double."""
    try:
        _fitting(value, type_)
    except ExpressionFailed:
        return False
    return True


def fitted(value: Any, type_: VariableType) -> Any:
    """The value as one of this type; raises ExpressionFailed where it may not stand in one."""
    return _fitting(value, type_)


@lru_cache(maxsize=4096)
def _compiled(text: str, variables: tuple[tuple[str, VariableType], ...], expected: VariableType) -> Compiled:
    if len(text) > MAX_CHARACTERS:
        raise ExpressionInvalid(f"it has more than {MAX_CHARACTERS} characters")
    if not text.isprintable() and any("\ud800" <= each <= "\udfff" for each in text):
        raise ExpressionInvalid("it is no Unicode text")
    types = dict(variables)
    names = _names(text, types)
    try:
        program = _environment(variables).compile(text)
    except RuntimeError as error:
        raise ExpressionInvalid(_problem(str(error))) from None
    given = _kind(program.return_type())
    if given != "DYN" and given not in _FITTING[expected]:
        raise ExpressionInvalid(f"it gives {given.lower()}, not {_WORDS[expected]}")
    return Compiled(program=program, types=types, expected=expected, names=names)


@lru_cache(maxsize=512)
def _environment(variables: tuple[tuple[str, VariableType], ...]) -> cel.Env:
    return cel.NewEnv(variables={name: _TYPES[type_] for name, type_ in variables})


def _names(text: str, types: Mapping[str, VariableType]) -> _Names:
    """What it names; raises ExpressionInvalid for too many comprehensions."""
    names = _Names()
    depth = 0
    inside_of: int | None = None
    for match in _TOKEN.finditer(text):
        found, rest = match.group(), text[match.end() :].lstrip()
        if match.lastgroup == "bracket":
            depth += 1 if found in "([{" else -1
            inside_of = None if inside_of is not None and depth <= inside_of else inside_of
        elif match.lastgroup == "name" and found in types:
            names.variables.append(found)
            if inside_of is not None:
                names.repeated.append(found)
        elif match.lastgroup == "name" and _is_comprehension(found, rest):
            if inside_of is not None:
                raise ExpressionInvalid("it has a comprehension inside of another")
            names.own.append(0)
            inside_of = depth
        elif match.lastgroup == "name":
            names.matches |= found.lstrip(".").strip() == "matches"
            if inside_of is not None and not found.startswith("."):
                names.own[-1] += 1
    if len(names.own) > _MAX_COMPREHENSIONS:
        raise ExpressionInvalid(f"it has more than {_MAX_COMPREHENSIONS} comprehensions")
    return names


def _is_comprehension(name: str, rest: str) -> bool:
    return name.lstrip(".").strip() in _COMPREHENSIONS and rest.startswith("(")


def _weigh(compiled: Compiled, data: Mapping[str, Any]) -> None:
    """Raises ExpressionFailed where the values are too large for what is done with them."""
    names = compiled.names
    weights = {name: _weight(value) for name, value in data.items()}
    rounds = min(_MAX_ROUNDS, sum(weights[name][0] for name in names.variables) + MAX_CHARACTERS)
    # One comprehension may hand the next as many copies of its values as it names them.
    total = sum(sum(weights[name]) for name in names.variables) * math.prod(max(1, each) for each in names.own)
    total += rounds * sum(sum(weights[name]) for name in names.repeated)
    if total > (_MAX_WEIGHT_MATCHED if names.matches else _MAX_WEIGHT):
        raise ExpressionFailed("the values are too large for it")


def _weight(value: Any) -> tuple[int, int]:
    """How many values there are, and how many characters."""
    values = characters = 0
    left = [value]
    while left:
        one = left.pop()
        values += 1
        match one:
            case str():
                characters += len(one)
            case list():
                left.extend(one)
            case dict():
                characters += sum(map(len, one))
                left.extend(one.values())
    return values, characters


def _given(value: Any, type_: VariableType) -> Any:
    value = _fitting(value, type_)
    return _doubles(value, 0) if type_ in (VariableType.LIST, VariableType.MAP) else value


def _doubles(value: Any, depth: int) -> Any:
    """JSON with every number as a double."""
    if depth > _MAX_DEPTH:
        raise ExpressionFailed(f"a value is nested deeper than {_MAX_DEPTH}")
    match value:
        case bool() | None:
            return value
        case int():
            if not _finite(value):
                raise ExpressionFailed("a number is too large")
            return float(value)
        case list() | tuple():
            return [_doubles(each, depth + 1) for each in value]
        case Mapping():
            return {str(key): _doubles(each, depth + 1) for key, each in value.items()}
    return value


class _Counter:
    def __init__(self) -> None:
        self._values = _MAX_RESULT_VALUES
        self._characters = _MAX_RESULT_CHARACTERS

    def count(self, characters: int) -> None:
        self._values -= 1
        self._characters -= characters
        if min(self._values, self._characters) < 0:
            raise ExpressionFailed("what it gives is too large")


def _plain(result: cel.Value, counter: _Counter, depth: int) -> Any:
    """A result as JSON, counted while it is made: one value may be in it a thousand times."""
    if depth > _MAX_DEPTH:
        raise ExpressionFailed(f"what it gives is nested deeper than {_MAX_DEPTH}")
    value = result.value()
    counter.count(len(value) if isinstance(value, str) else 0)
    match value:
        case str() | bool() | int() | None:
            return value
        case float():
            if not math.isfinite(value):
                raise ExpressionFailed("it gives a number that is not finite")
            return value
        case list():
            return [_plain(each, counter, depth + 1) for each in value]
        case dict():
            return {_key(key): _plain(each, counter, depth + 1) for key, each in value.items()}
    raise ExpressionFailed(f"it gives {_kind(result.type()).lower()}, which no variable holds")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise ExpressionFailed("it gives a map with keys that are no strings")
    return key


def _fitting(value: Any, expected: VariableType) -> Any:
    match expected, value:
        case VariableType.BOOL, bool():
            return value
        case ((VariableType.INT | VariableType.DOUBLE), bool()):
            pass
        case VariableType.STRING, str():
            return value
        case VariableType.INT, (int() | float()) if _whole(value):
            return int(value)
        case VariableType.DOUBLE, (int() | float()) if _finite(value):
            return float(value)
        case VariableType.LIST, (list() | tuple()):
            return list(value)
        case VariableType.MAP, Mapping():
            return dict(value)
    raise ExpressionFailed(f"it is {_name(value)}, not {_WORDS[expected]}")


def _whole(value: float) -> bool:
    return _finite(value) and value == int(value) and _INT_LOWEST <= value <= _INT_HIGHEST


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _name(value: Any) -> str:
    for types, word in _PLAIN_WORDS:
        if isinstance(value, types):
            return word
    return "null"


_PLAIN_WORDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "a bool"),
    ((int, float), "a number"),
    ((str,), "a string"),
    ((list, tuple), "a list"),
    ((Mapping,), "a map"),
)


def _kind(type_: cel.Type) -> str:
    return str(type_.name()).partition("<")[0].upper()


def _problem(said: str) -> str:
    """The library's message as one short line, without its codes and its drawing of the place."""
    line = next(_lines(said), "")
    line = re.sub(r"^[A-Z_]+: ", "", line)
    line = re.sub(r"^ERROR: <input>:(-?\d+):(-?\d+): ", lambda at: _place(at.group(2)), line)
    line = re.sub(r"\s*\(in container ''\)|\s*\[[A-Z_]+\]$", "", line).strip()
    return line[:_MAX_PROBLEM] or "it cannot be evaluated"


def _place(column: str) -> str:
    return f"at character {column}: " if int(column) > 0 else ""


def _lines(said: str) -> Iterator[str]:
    return (line for line in said.splitlines() if line.strip())
