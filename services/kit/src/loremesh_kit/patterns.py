"""Regular expressions of strangers, matched by RE2 in time linear in the text."""

from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]

from loremesh_kit.text import clean

MAX_LENGTH = 1000
_MAX_MEMORY = 1 << 20
# Of one search, as many as it takes in a tenth of a second.
MAX_STEPS = 100_000_000


class PatternRefused(ValueError):
    """It is no regular expression, or too large a one: at all, or for the text."""


@lru_cache(maxsize=512)
def compiled(pattern: str) -> Any:
    """The pattern, with `search(text)`; raises PatternRefused."""
    if len(pattern) > MAX_LENGTH:
        raise PatternRefused(f"a pattern has at most {MAX_LENGTH} characters")
    options = re2.Options()
    options.log_errors, options.max_mem = False, _MAX_MEMORY
    try:
        return re2.compile(pattern, options=options)
    except (re2.error, UnicodeError):
        raise PatternRefused("it is no regular expression of RE2, or too large a one") from None


def found(pattern: str, text: str) -> bool:
    """Whether any piece of the text matches a pattern that was checked; raises PatternRefused."""
    if steps(pattern, text) > MAX_STEPS:
        raise PatternRefused("the text is too long for it")
    return compiled(pattern).search(clean(text)) is not None


def steps(pattern: str, text: str) -> int:
    """The most that a search takes."""
    return int(compiled(pattern).programsize) * len(text)
