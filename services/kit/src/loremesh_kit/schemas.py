"""JSON Schemas of strangers (draft 2020-12), and values held against them at a bounded cost."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry

from loremesh_kit import patterns
from loremesh_kit.patterns import PatternRefused

MAX_BYTES = 32_768
# Protobuf itself reads some 30 levels.
MAX_DEPTH = 24
_MAX_PARTS = 4000
# Keywords looked at for one value: what branches upon branches would cost is not spent.
_MAX_STEPS = 50_000
_STEPS_OF_SEARCHES = patterns.MAX_STEPS // _MAX_STEPS
# Keywords within keywords: each takes some frames of the stack, and a library in Rust panics where the stack ends.
_MAX_NESTED = 100
_MAX_PROBLEM = 400
_DIALECTS = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
    }
)
_FORBIDDEN = (
    *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor", "$vocabulary"),
    # What they cost is not counted.
    *("unevaluatedItems", "unevaluatedProperties"),
)
# What is held against the same value as the schema around it.
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")
# Not schemas, whatever they look like.
_DATA = frozenset({"const", "enum", "default", "examples"})
# What they hold are schemas by names, and a name is no keyword.
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


@dataclass(slots=True)
class _Purse:
    """What may still be spent on one value."""

    steps: int = _MAX_STEPS
    nested: int = _MAX_NESTED

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0 or self.nested < 0:
            raise _TooMuch


_purse: ContextVar[_Purse] = ContextVar("loremesh_schema_purse")


class _TooMuch(Exception):
    """Nothing more is spent on it."""


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """Why something cannot be the JSON Schema of an object, None where it can."""
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, RecursionError):
        return "it is no JSON."
    except ValueError:
        return "a number in it is not finite."
    if len(text) > MAX_BYTES:
        return f"it has {len(text)} bytes, more than {MAX_BYTES}."
    return _problem_of(text)


@lru_cache(maxsize=256)
def _problem_of(text: str) -> str | None:
    """Remembered, since it takes up to half a second, and one is checked again with every change around it."""
    schema = json.loads(text)
    if not isinstance(schema, dict):
        return "it must be an object."
    if depth(schema) > MAX_DEPTH:
        return f"it is nested deeper than {MAX_DEPTH} levels."
    dialect = schema.get("$schema")
    if dialect is not None and str(dialect).rstrip("#") not in _DIALECTS:
        return "$schema names a dialect that is not supported; leave it out for draft 2020-12."
    if schema.get("type") != "object":
        return "its type must be object."
    return _structure_problem(schema) or _meta_problem(schema) or _reference_problem(schema) or None


def problem(schema: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with a value, in words for whoever made it; None where it fulfils a schema that was checked."""
    # The library would take its own validator for the dialect: the one that counts is ours.
    schema = {keyword: held for keyword, held in schema.items() if keyword != "$schema"}
    token = _purse.set(_Purse())
    try:
        error = best_match(_Validator(schema, registry=Registry()).iter_errors(value))
    except _TooMuch:
        return "it is too large or nests too deep to be checked."
    finally:
        _purse.reset(token)
    return None if error is None else _told(error)


def problem_of_text(schema: Mapping[str, Any], text: str) -> str:
    """What is wrong with a text that should be JSON by this schema; empty where nothing is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "It is not JSON."
    return problem(schema, value) or ""


def depth(value: Any) -> int:
    """How deep a JSON value nests; a plain one is 1."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [each for container in level for each in _children(container)]
    return deepest


def _children(value: object) -> Collection[Any]:
    match value:
        case Mapping():
            return value.values()
        case list() | tuple():
            return value
    return ()


def _structure_problem(schema: Mapping[str, Any]) -> str:
    for parts, node in enumerate(_nodes(schema), 1):
        if parts > _MAX_PARTS:
            return f"it has more than {_MAX_PARTS} parts."
        if isinstance(node, Mapping) and (found := _node_problem(node, is_root=node is schema)):
            return found
    return ""


def _node_problem(node: Mapping[str, Any], *, is_root: bool) -> str:
    for keyword in _FORBIDDEN:
        if keyword in node:
            return f"{keyword} is not supported."
    for keyword in () if is_root else ("$id", "$schema"):
        if keyword in node:
            return f"{keyword} is supported at the root only."
    reference = node.get("$ref")
    if isinstance(reference, str) and not (reference == "#" or reference.startswith("#/")):
        return "$ref must point into the schema itself: #/$defs/..."
    named = node.get("patternProperties")
    for pattern in [*(named if isinstance(named, Mapping) else ()), node.get("pattern")]:
        try:
            if isinstance(pattern, str):
                patterns.compiled(_translated(pattern))
        except PatternRefused as refused:
            return f"in a pattern, {refused}."
    return ""


def _nodes(root: Any) -> Iterator[Any]:
    """All that may be used as a schema, and lists of such."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, Mapping):
            for key, value in node.items():
                if key in _BY_NAME and isinstance(value, Mapping):
                    waiting.extend(value.values())
                elif key not in _DATA:
                    waiting.append(value)


def _meta_problem(schema: Mapping[str, Any]) -> str:
    try:
        Draft202012Validator.check_schema({key: value for key, value in schema.items() if key != "$schema"})
    except SchemaError as error:
        return f"at {_path(error) or 'its root'}, {error.validator} is broken."
    return ""


def _reference_problem(schema: Mapping[str, Any]) -> str:
    """References that lead nowhere, or back to themselves without taking a step into the value."""
    targets: dict[str, Any] = {}
    nodes = [node for node in _nodes(schema) if isinstance(node, Mapping | bool)]
    looked_at = {id(node) for node in nodes}
    for node in nodes:
        if isinstance(node, Mapping) and isinstance(reference := node.get("$ref"), str):
            target = pointed(schema, reference)
            if id(target) not in looked_at:
                return f"$ref {reference[:100]!r} leads nowhere, or to what is no schema."
            targets[reference] = target
    done: set[int] = set()
    if any(_turns_back(target, targets, set(), done) for target in targets.values()):
        return "a $ref leads back to itself."
    return ""


def _turns_back(node: Any, targets: Mapping[str, Any], path: set[int], done: set[int]) -> bool:
    if not isinstance(node, Mapping) or id(node) in done:
        return False
    # A path longer than a value is followed ends in the same refusal, and not with the stack.
    if id(node) in path or len(path) > _MAX_NESTED:
        return True
    inner = [targets[node["$ref"]]] if isinstance(node.get("$ref"), str) else []
    for keyword in _IN_PLACE:
        held = node.get(keyword)
        inner.extend(held if isinstance(held, list) else [held])
    dependent = node.get("dependentSchemas")
    inner.extend(dependent.values() if isinstance(dependent, Mapping) else ())
    found = any(_turns_back(each, targets, path | {id(node)}, done) for each in inner)
    done.add(id(node))
    return found


def pointed(schema: Any, reference: str) -> Any:
    """What a reference points to, as the library follows it; None where that is nothing."""
    for part in unquote(reference.removeprefix("#")).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            schema = schema[int(part) if isinstance(schema, list | tuple) else name]
        except (LookupError, ValueError, TypeError):
            return None
    return schema


def _translated(pattern: str) -> str:
    """A pattern of JSON Schema, which is ECMA's, for RE2: their one difference that is easily bridged."""
    return _ESCAPE.sub(lambda escape: rf"\x{{{escape[1]}}}" if escape[1] else escape[0], pattern)


def _told(error: ValidationError) -> str:
    where = _path(error)
    what = _SENTENCES.get(str(error.validator), _otherwise)(error)
    text = f"{where}: {what}" if where else what
    return text if len(text) <= _MAX_PROBLEM else f"{text[:_MAX_PROBLEM]}..."


def _path(error: ValidationError | SchemaError) -> str:
    return ".".join(str(part) for part in error.absolute_path)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_PROBLEM // 2 else f"{text[: _MAX_PROBLEM // 2]}..."


def _type(error: ValidationError) -> str:
    wanted: Any = error.validator_value
    return f"must be of type {' or '.join([wanted] if isinstance(wanted, str) else wanted)}."


def _missing(error: ValidationError) -> str:
    held: Any = error.instance
    wanted: Any = error.validator_value
    return f"{', '.join(repr(name) for name in wanted if name not in held)} is missing."


def _unknown(error: ValidationError) -> str:
    held: Any = error.instance
    schema: Any = error.schema
    known = list(schema.get("properties", {}))
    strange = [name for name in held if name not in known]
    allowed = f"; there is {', '.join(repr(name) for name in known)}" if known else ""
    return f"{', '.join(map(repr, strange))} is not known{allowed}."


def _otherwise(error: ValidationError) -> str:
    return f"does not fulfil {error.validator} {_json(error.validator_value)}."


_SENTENCES: Mapping[str, Callable[[ValidationError], str]] = {
    "type": _type,
    "required": _missing,
    "additionalProperties": _unknown,
    "enum": lambda error: f"must be one of {_json(error.validator_value)}.",
    "const": lambda error: f"must be {_json(error.validator_value)}.",
    "minimum": lambda error: f"must be at least {error.validator_value}.",
    "maximum": lambda error: f"must be at most {error.validator_value}.",
    "minLength": lambda error: f"must have at least {error.validator_value} characters.",
    "maxLength": lambda error: f"must have at most {error.validator_value} characters.",
    "minItems": lambda error: f"must have at least {error.validator_value} items.",
    "maxItems": lambda error: f"must have at most {error.validator_value} items.",
    "anyOf": lambda _: "fits none of the forms it may have.",
    "oneOf": lambda _: "must fit exactly one of the forms it may have.",
}

_Keyword = Callable[[Any, Any, Any, Any], Any]


def _counted(keyword: _Keyword) -> _Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        purse = _purse.get()
        purse.nested -= 1
        try:
            purse.spend(1)
            yield from keyword(validator, value, instance, schema) or ()
        finally:
            purse.nested += 1

    return check


def _found(pattern: str, text: str) -> bool:
    pattern = _translated(pattern)
    # All searches in one value together take no longer than one alone may.
    _purse.get().spend(patterns.steps(pattern, text) // _STEPS_OF_SEARCHES)
    return patterns.found(pattern, text)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    del validator, schema
    if isinstance(instance, str) and not _found(pattern, instance):
        yield ValidationError("")


def _pattern_properties(validator: Any, named: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    del schema
    if not isinstance(instance, Mapping):
        return
    for pattern, inner in named.items():
        _purse.get().spend(len(instance))
        for name, value in instance.items():
            if _found(pattern, name):
                yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional(validator: Any, inner: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, Mapping):
        return
    known, named = schema.get("properties", {}), schema.get("patternProperties", {})
    _purse.get().spend(len(instance) * len(named))
    for name, value in instance.items():
        if name in known or any(_found(pattern, name) for pattern in named):
            continue
        if inner is False:
            yield ValidationError("")
            return
        yield from validator.descend(value, inner, path=name)


def _unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Any:
    # Items without an order are compared each with each.
    if isinstance(instance, list):
        _purse.get().spend(len(instance) ** 2 // 100)
    return Draft202012Validator.VALIDATORS["uniqueItems"](validator, wanted, instance, schema)


_OWN: Mapping[str, _Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "uniqueItems": _unique,
}
_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    validators={name: _counted(_OWN.get(name, keyword)) for name, keyword in Draft202012Validator.VALIDATORS.items()},
)
