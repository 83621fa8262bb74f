"""Prices from files: our own, and the operator's."""

from importlib.resources import files
from pathlib import Path

from loremesh_agent.domain import prices
from loremesh_agent.domain.prices import Prices


def load(path: str) -> Prices:
    """Our own, and in their place those of the file at `path` where there is one; raises PricesInvalid, OSError."""
    own = prices.read((files("loremesh_agent") / "prices.toml").read_text("utf-8"))
    return own.updated(prices.read(Path(path).read_text("utf-8"))) if path else own
