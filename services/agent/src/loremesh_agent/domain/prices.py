"""What models cost."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.model_names import split

# Instead of a model's name: every model of the provider.
_ANY = "*"
_MILLION = 1_000_000
# Providers name snapshots of a model by their day: `-2026-03-17` or `-20260317`.
_SNAPSHOT = re.compile(r"-20\d\d-?\d\d-?\d\d$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Of a million tokens, in millionths of a US dollar."""

    input_micros: int
    cached_input_micros: int
    output_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedModel:
    """A model, `provider/model`, and its price."""

    model: str
    price: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProvider:
    """A provider that can be asked once `variable` is set, and its models whose price is known, by name."""

    name: str
    configured: bool
    variable: str
    models: Sequence[PricedModel] = ()


class PricesInvalid(ValueError):
    """The prices cannot be read."""


class Prices:
    """Prices by `provider/model`; `provider/*` is for every other model of a provider."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self.by_model = dict(prices)

    def of(self, model: str) -> Price | None:
        """The model's, or that of the model whose snapshot it is; None where nothing is known."""
        provider, _ = split(model)
        names = (model, _SNAPSHOT.sub("", model), f"{provider}/{_ANY}")
        return next((self.by_model[name] for name in names if name in self.by_model), None)

    def cost(self, model: str, usage: Usage) -> int | None:
        """What the tokens cost in millionths of a US dollar, rounded up; None where the price is not known."""
        price = self.of(model)
        if price is None:
            return None
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        parts = (
            (usage.input_tokens - cached) * price.input_micros,
            cached * price.cached_input_micros,
            usage.output_tokens * price.output_micros,
        )
        return -(-sum(parts) // _MILLION)

    def of_provider(self, provider: str) -> Sequence[PricedModel]:
        """Its models by name."""
        mine = sorted(model for model in self.by_model if split(model)[0] == provider)
        return tuple(PricedModel(model=model, price=self.by_model[model]) for model in mine)

    def updated(self, other: "Prices") -> "Prices":
        """These, and in their place what the other says."""
        return Prices({**self.by_model, **other.by_model})


def read(text: str) -> Prices:
    """Prices from TOML: a table a provider, in it a table a model with `input`, `cached_input` and `output`.

    Each is in US dollars for a million tokens; without `cached_input` those are as dear as others. Raises
    PricesInvalid.
    """
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PricesInvalid(f"not TOML: {error}") from None
    prices: dict[str, Price] = {}
    for provider, models in tables.items():
        if not isinstance(models, dict):
            raise PricesInvalid(f"{provider}: not a table of models")
        prices.update({f"{provider}/{model}": _price(f"{provider}/{model}", row) for model, row in models.items()})
    return Prices(prices)


def _price(model: str, row: object) -> Price:
    if not isinstance(row, dict) or not {"input", "output"} <= row.keys() <= {"input", "cached_input", "output"}:
        raise PricesInvalid(f"{model}: a price has input and output, and may have cached_input")
    return Price(
        input_micros=_micros(model, row["input"]),
        cached_input_micros=_micros(model, row.get("cached_input", row["input"])),
        output_micros=_micros(model, row["output"]),
    )


def _micros(model: str, dollars: object) -> int:
    try:
        amount = Decimal(str(dollars))
    except InvalidOperation:
        raise PricesInvalid(f"{model}: {dollars!r} is no price") from None
    if not (amount.is_finite() and amount >= 0) or isinstance(dollars, bool):
        raise PricesInvalid(f"{model}: {dollars!r} is no price")
    return int((amount * _MILLION).to_integral_value(ROUND_CEILING))
