"""Prompts of a TOML file: the one that comes with the service, or an operator's."""

import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from loremesh_agent import prompts
from loremesh_agent.domain.templates import KeptPrompt, variables
from loremesh_agent.errors import PromptInvalid, PromptNotFound

_OPTIONAL = {"refusal"}
_TYPES = {"name": str, "version": int, "language": str, "text": str, "refusal": str}


class PromptFile:
    """Prompts by name, language and version."""

    def __init__(self, kept: Iterable[KeptPrompt]) -> None:
        self._kept: dict[tuple[str, str], dict[int, KeptPrompt]] = {}
        for prompt in kept:
            self._kept.setdefault((prompt.name, prompt.language), {})[prompt.version] = prompt

    @classmethod
    def load(cls, path: str = "") -> Self:
        """Those of a file, empty for the service's own; raises ValueError, which says which prompt is wrong."""
        source = Path(path) if path else files(prompts) / "prompts.toml"
        read: dict[str, Any] = tomllib.loads(source.read_text(encoding="utf-8"))
        kept = [_prompt(number, entry) for number, entry in enumerate(read.get("prompts", []), 1)]
        if len({(each.name, each.language, each.version) for each in kept}) < len(kept):
            message = "two prompts of the prompts file have the same name, language and version"
            raise ValueError(message)
        return cls(kept)

    async def find(self, name: str, *, version: int, language: str) -> KeptPrompt:
        """See ports.PromptLibrary."""
        versions = self._kept.get((name, language), {})
        found = versions.get(version or max(versions, default=0))
        if found is None:
            raise PromptNotFound(described(name, version=version, language=language))
        return found


def described(name: str, *, version: int, language: str) -> str:
    """A prompt, as errors call it."""
    return f"{name!r} in {language!r}" + (f", version {version}" if version else "")


def _prompt(number: int, entry: dict[str, Any]) -> KeptPrompt:
    wrong = (_TYPES.keys() ^ entry.keys()) - _OPTIONAL
    wrong |= {key for key, value in entry.items() if key in _TYPES and type(value) is not _TYPES[key]}
    if wrong or entry["version"] < 1:
        message = f"prompt {number} of the prompts file is missing, or should not have: {sorted(wrong) or ['version']}"
        raise ValueError(message)
    try:
        variables(entry["text"])
    except PromptInvalid as error:
        message = f"prompt {number} of the prompts file: {error.message}"
        raise ValueError(message) from error
    return KeptPrompt(**{**entry, "text": entry["text"].strip()})
