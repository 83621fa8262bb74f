"""Templates of prompts: text with `{{variable}}`, and nothing else to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from loremesh_agent.errors import PromptInvalid

# As long as instructions may be that an agent brings itself.
MAX_CHARS = 32_000
# `\{{` is two braces; a name is no expression: nothing is looked up in it, nothing called.
_PART = re.compile(r"\\\{\{|\{\{\s*(?P<name>[A-Za-z_][A-Za-z0-9_]{0,63})\s*\}\}|(?P<stray>\{\{)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPrompt:
    """A prompt of a library, as one version and language of it is."""

    name: str
    version: int
    language: str
    text: str
    # Said in place of the built-in sentence when the documents do not hold the answer; empty: that one.
    refusal: str = ""


def variables(text: str) -> frozenset[str]:
    """Names in a template; raises PromptInvalid for one that is too long or has braces around what is no name."""
    if len(text) > MAX_CHARS:
        raise PromptInvalid(f"The template is longer than {MAX_CHARS} characters.")
    names: set[str] = set()
    for part in _PART.finditer(text):
        if part["stray"]:
            raise PromptInvalid(f"At character {part.start()} two braces open but do not hold the name of a variable.")
        if part["name"]:
            names.add(part["name"])
    return frozenset(names)


def render(text: str, values: Mapping[str, str]) -> str:
    """The template with its variables' values, in which braces mean nothing.

    Raises PromptInvalid where a variable is missing or superfluous, and where the result is longer than 32,000
    characters.
    """
    names = variables(text)
    missing, superfluous = sorted(names - values.keys()), sorted(values.keys() - names)
    problems = [
        f"{what}: {', '.join(map(repr, listed))}"
        for what, listed in (("missing", missing), ("superfluous", superfluous))
        if listed
    ]
    if problems:
        raise PromptInvalid(f"The variables do not fit the prompt; {'; '.join(problems)}.")
    rendered = _PART.sub(lambda part: values[part["name"]] if part["name"] else "{{", text)
    if len(rendered) > MAX_CHARS:
        raise PromptInvalid(f"With its variables the prompt is longer than {MAX_CHARS} characters.")
    return rendered
