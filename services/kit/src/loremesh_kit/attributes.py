"""Attributes: what owners attach to their resources, and filter by."""

import json
import math
from collections.abc import Mapping

from loremesh_kit.errors import AttributesInvalid

MAX_KEYS = 64
MAX_KEY_CHARS = 64
MAX_BYTES = 16 * 1024


def check(attributes: Mapping[str, object], *, field: str = "attributes") -> None:
    """Raise AttributesInvalid, naming `field`, unless they are few, small and of types that filters compare."""
    if problem := _problem(attributes):
        raise AttributesInvalid(problem, field=field)


def _problem(attributes: Mapping[str, object]) -> str | None:
    if len(attributes) > MAX_KEYS:
        return f"There may be at most {MAX_KEYS} attributes."
    for key, value in attributes.items():
        if not 1 <= len(key) <= MAX_KEY_CHARS:
            return f"An attribute's name must have 1 to {MAX_KEY_CHARS} characters."
        if not all(_is_scalar(element) for element in (value if isinstance(value, list) else [value])):
            return f"The attribute {key} must be a string, a finite number, a boolean or a list of them."
    if len(json.dumps(attributes, ensure_ascii=False).encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return f"The attributes must take at most {MAX_BYTES // 1024} KiB as JSON."
    return None


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))
