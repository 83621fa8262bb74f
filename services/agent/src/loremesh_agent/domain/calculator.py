"""Arithmetic on exact decimals: a grammar of its own, every size bounded before it is computed.

sum      := term (("+" | "-") term)*
term     := sign (("*" | "/" | "//" | "%") sign)*
sign     := ("+" | "-") sign | power
power    := postfix ("**" sign)?
postfix  := atom "%"?
atom     := number | name "(" sum ("," sum)* ")" | "(" sum ")"
"""

import decimal
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal

MAX_CHARACTERS = 1000
_MAX_DEPTH = 50
_MAX_LITERAL_DIGITS = 100
_MAX_EXPONENT = 1000
# What is exact may take as many digits; what cannot be (thirds, roots) is rounded to fewer.
_MAX_DIGITS = 1000
_ROUNDED_DIGITS = 50
# Numbers without a dot or with one among so many digits are written out; others as 1.5E+60.
_PLAIN_DIGITS = 60

_EXACT = decimal.Context(prec=_MAX_DIGITS, Emax=_MAX_DIGITS, Emin=-_MAX_DIGITS)
_ROUNDED = decimal.Context(prec=_ROUNDED_DIGITS, rounding=decimal.ROUND_HALF_EVEN, Emax=_MAX_DIGITS, Emin=-_MAX_DIGITS)
# They are looked at after each operation; only nonsense and what has no size raise.
_TRAPS = (decimal.DivisionByZero, decimal.InvalidOperation, decimal.Overflow)

_TOKEN = re.compile(
    r"(?P<number>(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z]+)|(?P<sign>\*\*|//|[-+*/%(),])"
)
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "\u2191", "\u00a0": " "})
_STARTS_OPERAND = re.compile(r"[\d.A-Za-z(]")


class CalculationRefused(ValueError):
    """It is no arithmetic, has no result or too large a one; the text says why, in words for a model."""


@dataclass(frozen=True, slots=True)
class Calculated:
    """A result, written out; `exact` is False where it was rounded to 50 digits on the way."""

    text: str
    exact: bool


def calculate(expression: str) -> Calculated:
    """Evaluate an expression; raises CalculationRefused."""
    if len(expression) > MAX_CHARACTERS:
        raise CalculationRefused(f"The expression is longer than {MAX_CHARACTERS} characters.")
    reader = _Reader(_tokens(expression.translate(_SPELLINGS).replace("\u2191", "**")))
    try:
        result = reader.whole()
    except decimal.Overflow:
        raise CalculationRefused(f"The result has more than {_MAX_DIGITS} digits.") from None
    except (decimal.InvalidOperation, decimal.DivisionByZero):
        raise CalculationRefused("This has no result among the real numbers, or one of too many digits.") from None
    return Calculated(_written(result), exact=reader.exact)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def _tokens(expression: str) -> list[_Token]:
    found, at = [], 0
    while at < len(expression):
        if expression[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(expression, at)
        if match is None:
            raise CalculationRefused(f"{expression[at]!r} is not understood here (character {at + 1}).")
        found.append(_Token(match.lastgroup or "", match.group()))
        at = match.end()
    if not found:
        raise CalculationRefused("The expression is empty.")
    return found


class _Reader:
    """Reads tokens by precedence and computes on the way."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self.exact = True

    def whole(self) -> Decimal:
        """The value of all tokens."""
        value = self._sum()
        if self._at < len(self._tokens):
            raise CalculationRefused(f"{self._tokens[self._at].text!r} is not expected where it stands.")
        return value

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].text if at < len(self._tokens) else ""

    def _take(self, *texts: str) -> str:
        text = self._peek()
        if text and text in texts:
            self._at += 1
            return text
        return ""

    def _expect(self, text: str) -> None:
        if not self._take(text):
            found = self._peek()
            raise CalculationRefused(f"{text!r} is missing " + (f"before {found!r}." if found else "at the end."))

    def _deeper(self, read: Callable[[], Decimal]) -> Decimal:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise CalculationRefused(f"The expression nests more than {_MAX_DEPTH} deep.")
        value = read()
        self._depth -= 1
        return value

    def _sum(self) -> Decimal:
        value = self._term()
        while sign := self._take("+", "-"):
            other = self._term()
            value = self._exactly("add" if sign == "+" else "subtract", value, other)
        return value

    def _term(self) -> Decimal:
        value = self._sign()
        while sign := self._take("*", "/", "//", "%"):
            value = self._binary(sign, value, self._sign())
        return value

    def _binary(self, sign: str, left: Decimal, right: Decimal) -> Decimal:
        if sign != "*" and not right:
            raise CalculationRefused("Division by zero.")
        match sign:
            case "*":
                return self._exactly("multiply", left, right)
            case "/":
                return self._rounded("divide", left, right)
        whole = self._floor_quotient(left, right)
        if sign == "//":
            return whole
        return self._exactly("subtract", left, self._exactly("multiply", whole, right))

    def _floor_quotient(self, left: Decimal, right: Decimal) -> Decimal:
        whole, rest = _context(_EXACT).divmod(left, right)
        # Decimal cuts towards zero.
        return self._exactly("subtract", whole, Decimal(1)) if rest and rest.is_signed() != right.is_signed() else whole

    def _sign(self) -> Decimal:
        if sign := self._take("+", "-"):
            value = self._deeper(self._sign)
            return value if sign == "+" else value.copy_negate()
        return self._power()

    def _power(self) -> Decimal:
        base = self._postfix()
        if not self._take("**"):
            return base
        return self._raised(base, self._deeper(self._sign))

    def _raised(self, base: Decimal, exponent: Decimal) -> Decimal:
        if exponent.copy_abs() > _MAX_EXPONENT:
            raise CalculationRefused(f"Exponents go from -{_MAX_EXPONENT} to {_MAX_EXPONENT}.")
        if not base and not exponent:
            return Decimal(1)
        if not base and exponent < 0:
            raise CalculationRefused("Division by zero.")
        if exponent != exponent.to_integral_value() or exponent < 0:
            return self._rounded("power", base, exponent)
        # As many digits as the factors have together, at most.
        if base and len(base.normalize(_context(_EXACT)).as_tuple().digits) * int(exponent) > _MAX_DIGITS:
            return self._rounded("power", base, exponent)
        return self._exactly("power", base, exponent)

    def _postfix(self) -> Decimal:
        value = self._atom()
        # `5 % 3` is what is left of a division, `5%` a percentage; of `5% - 3` nobody can say.
        following = self._peek(1)
        if self._peek() != "%" or _STARTS_OPERAND.match(following):
            return value
        if following in ("+", "-"):
            raise CalculationRefused("Write a percentage before + or - in parentheses: (5%) - 3.")
        self._at += 1
        return self._exactly("multiply", value, Decimal("0.01"))

    def _atom(self) -> Decimal:
        if self._at == len(self._tokens):
            raise CalculationRefused("The expression ends too early.")
        token = self._tokens[self._at]
        self._at += 1
        match token.kind:
            case "number":
                return _number(token.text)
            case "name":
                return self._function(token.text.lower())
        if token.text != "(":
            raise CalculationRefused(f"{token.text!r} is not expected where it stands.")
        value = self._deeper(self._sum)
        self._expect(")")
        return value

    def _function(self, name: str) -> Decimal:
        if name not in _FUNCTIONS:
            raise CalculationRefused(f"{name!r} is not known; there are {', '.join(sorted(_FUNCTIONS))}.")
        self._expect("(")
        arguments = [self._deeper(self._sum)]
        while self._take(","):
            arguments.append(self._deeper(self._sum))
        self._expect(")")
        least, most, function = _FUNCTIONS[name]
        if not least <= len(arguments) <= most:
            raise CalculationRefused(f"{name} takes {least} argument{'s' if least > 1 else ''}" + _up_to(least, most))
        return function(self, arguments)

    def sqrt(self, value: Decimal) -> Decimal:
        """Rounded unless it comes out even."""
        return self._rounded("sqrt", value)

    def rounded_to(self, value: Decimal, digits: Decimal, rounding: str) -> Decimal:
        """To so many digits behind the point."""
        if digits != digits.to_integral_value() or digits.copy_abs() > _MAX_LITERAL_DIGITS:
            raise CalculationRefused(f"round takes -{_MAX_LITERAL_DIGITS} to {_MAX_LITERAL_DIGITS} digits.")
        return value.quantize(Decimal(1).scaleb(-int(digits)), rounding=rounding, context=_context(_EXACT))

    def _exactly(self, operation: str, *operands: Decimal) -> Decimal:
        context = _context(_EXACT)
        value: Decimal = getattr(context, operation)(*operands)
        if context.flags[decimal.Inexact] or context.flags[decimal.Subnormal]:
            raise CalculationRefused(f"The result has more than {_MAX_DIGITS} digits.")
        return value

    def _rounded(self, operation: str, *operands: Decimal) -> Decimal:
        context = _context(_ROUNDED)
        value: Decimal = getattr(context, operation)(*operands)
        if context.flags[decimal.Subnormal]:
            raise CalculationRefused(f"The result has more than {_MAX_DIGITS} digits.")
        self.exact = self.exact and not context.flags[decimal.Inexact]
        return value


def _context(of: decimal.Context) -> decimal.Context:
    fresh = of.copy()
    fresh.clear_flags()
    fresh.clear_traps()
    for trap in _TRAPS:
        fresh.traps[trap] = True
    return fresh


def _up_to(least: int, most: int) -> str:
    return "." if least == most else f" to {most}." if most <= least + 1 else " or more."


def _number(text: str) -> Decimal:
    digits, _, exponent = text.lower().partition("e")
    if sum(character.isdigit() for character in digits) > _MAX_LITERAL_DIGITS:
        raise CalculationRefused(f"A number has at most {_MAX_LITERAL_DIGITS} digits.")
    if len(exponent) > 5 or abs(int(exponent or 0)) > _MAX_DIGITS // 2:  # noqa: PLR2004 - no exponent in range is longer
        raise CalculationRefused(f"A number's exponent goes from -{_MAX_DIGITS // 2} to {_MAX_DIGITS // 2}.")
    return Decimal(digits.replace("_", "") + (f"e{exponent}" if exponent else ""))


def _written(value: Decimal) -> str:
    value = value.normalize(_context(_EXACT)) if value else Decimal(0)
    _, digits, exponent = value.as_tuple()
    before, after = len(digits) + int(exponent), max(0, -int(exponent))
    return f"{value:f}" if max(before, 1) + after <= max(_PLAIN_DIGITS, len(digits)) else str(value)


_Function = Callable[[_Reader, list[Decimal]], Decimal]
_MANY = 50
_FUNCTIONS: Mapping[str, tuple[int, int, _Function]] = {
    "abs": (1, 1, lambda _, given: given[0].copy_abs()),
    "ceil": (1, 1, lambda reader, given: reader.rounded_to(given[0], Decimal(0), ROUND_CEILING)),
    "floor": (1, 1, lambda reader, given: reader.rounded_to(given[0], Decimal(0), ROUND_FLOOR)),
    "max": (1, _MANY, lambda _, given: max(given)),
    "min": (1, _MANY, lambda _, given: min(given)),
    "round": (1, 2, lambda reader, given: reader.rounded_to(given[0], [*given, Decimal(0)][1], ROUND_HALF_UP)),
    "sqrt": (1, 1, lambda reader, given: reader.sqrt(given[0])),
}
