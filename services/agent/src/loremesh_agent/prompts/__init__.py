"""The wordings that come with the service."""

import tomllib
from importlib.resources import files
from typing import Any, Literal

from loremesh_agent.domain.wording import Wording

Name = Literal["full", "compact"]


def load(name: Name) -> Wording:
    """The wording of this name."""
    fields: dict[str, Any] = tomllib.loads((files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))
    texts = {name: value.strip() for name, value in fields.items() if isinstance(value, str)}
    fields["stop"] = tuple(fields["stop"])
    return Wording(**{**fields, **texts})
