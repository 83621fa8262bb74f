"""CEL: what it may say, what it gives, and that it cannot be made to take long."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_crew.domain.definitions import VariableType
from loremesh_crew.domain.expressions import ExpressionFailed, ExpressionInvalid, compile_expression, evaluate, fits

pytestmark = pytest.mark.unit

TYPES = {
    "output": VariableType.STRING,
    "json": VariableType.MAP,
    "rows": VariableType.LIST,
    "count": VariableType.INT,
    "share": VariableType.DOUBLE,
    "ready": VariableType.BOOL,
}
VALUES: dict[str, Any] = {
    "output": "approved",
    "json": {"score": 7, "names": ["a", "b"], "none": None},
    "rows": [1, {"ok": True}],
    "count": 2,
    "share": 1,
    "ready": True,
}


def give(text: str, expected: VariableType, **values: Any) -> Any:
    return evaluate(text, TYPES, {**VALUES, **values}, expected)


@pytest.mark.parametrize(
    ("text", "expected", "result"),
    [
        ("count + 1", VariableType.INT, 3),
        ("count + 1", VariableType.DOUBLE, 3.0),
        ("json.score", VariableType.INT, 7),
        ("json.score * 0.5", VariableType.DOUBLE, 3.5),
        ("json.score > 6 && ready", VariableType.BOOL, True),
        ("int(json.score) + count", VariableType.INT, 9),
        ("output + '!'", VariableType.STRING, "approved!"),
        ("'x.map(' + output", VariableType.STRING, "x.map(approved"),
        ("output.matches('^app')", VariableType.BOOL, True),
        ("rows + [3]", VariableType.LIST, [1.0, {"ok": True}, 3]),
        ("json", VariableType.MAP, {"score": 7.0, "names": ["a", "b"], "none": None}),
        ("{'n': count}", VariableType.MAP, {"n": 2}),
        ("json.names.map(n, n + '!')", VariableType.LIST, ["a!", "b!"]),
        ("has(json.missing) ? 1 : 0", VariableType.INT, 0),
        ("share", VariableType.DOUBLE, 1.0),
    ],
)
def test_an_expression_gives_a_plain_value_of_its_type(text: str, expected: VariableType, result: Any) -> None:
    found = give(text, expected)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("text", "expected", "problem"),
    [
        ("count +", VariableType.INT, "Syntax error"),
        ("", VariableType.INT, "Syntax error"),
        ("missing", VariableType.INT, "undeclared reference to 'missing'"),
        ("count + 1", VariableType.STRING, "it gives int, not a string"),
        ("output", VariableType.BOOL, "it gives string, not a bool"),
        ("timestamp('2026-01-01T00:00:00Z')", VariableType.STRING, "it gives timestamp"),
        ("count + output", VariableType.INT, "no matching overload"),
        ("1" * 1001, VariableType.INT, "more than 1000 characters"),
        ("(" * 200 + "1" + ")" * 200, VariableType.INT, "recursion limit"),
        ("'\ud800'", VariableType.STRING, "no Unicode"),
        ("rows.map(a, rows.map(b, b))", VariableType.LIST, "a comprehension inside of another"),
        ("rows. map (a, rows .exists(b, b))", VariableType.LIST, "a comprehension inside of another"),
        (r"r'\' + rows.map(a, rows.map(b, b))", VariableType.LIST, "a comprehension inside of another"),
        ("rows.map(a, a).map(a, a).map(a, a)", VariableType.LIST, "more than 2 comprehensions"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_problem(text: str, expected: VariableType, problem: str) -> None:
    with pytest.raises(ExpressionInvalid) as refused:
        compile_expression(text, TYPES, expected)
    assert problem in refused.value.problem
    assert "\n" not in refused.value.problem
    assert len(refused.value.problem) <= 300


@pytest.mark.parametrize(
    ("text", "expected", "problem"),
    [
        ("count / 0", VariableType.INT, "divide by zero"),
        ("json.missing", VariableType.INT, 'Key not found in map : "missing"'),
        ("json.score", VariableType.BOOL, "it is a number, not a bool"),
        ("json.none", VariableType.STRING, "it is null, not a string"),
        ("json.score + 0.5", VariableType.DOUBLE, None),
        ("1.0 / 0.0", VariableType.DOUBLE, "not finite"),
        ("{1: 2}", VariableType.MAP, "keys that are no strings"),
        ("[timestamp('2026-01-01T00:00:00Z')]", VariableType.LIST, "timestamp, which no variable holds"),
        ("9223372036854775807 + count", VariableType.INT, "overflow"),
        ("rows[9]", VariableType.INT, "index=9"),
    ],
)
def test_what_gives_nothing_with_these_values_says_why(text: str, expected: VariableType, problem: str | None) -> None:
    if problem is None:
        assert give(text, expected) == 7.5
        return
    with pytest.raises(ExpressionFailed) as failure:
        give(text, expected)
    assert problem in failure.value.problem


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("rows.map(x, rows).size() > 0", {"rows": [0] * 5000}),
        (
            "rows.exists(x, output.matches('(x|y|.){1,300}(a|b|.){1,300}z'))",
            {"rows": [0] * 1000, "output": "a" * 100_000},
        ),
        ("output.matches('a.{0,999}b.{0,900}Q')", {"output": "abxy" * 100_000}),
        ("matches(output, 'a.{0,999}b.{0,900}Q')", {"output": "abxy" * 100_000}),
        ("rows.map(x, output + output).size() > 0", {"rows": [0] * 1000, "output": "a" * 100_000}),
        (
            f"rows.map(x, {'+'.join('x' * 20)}).map(x, {'+'.join('x' * 20)}).size() > 0",
            {"rows": ["a" * 100_000]},
        ),
    ],
)
def test_values_too_large_for_what_is_done_with_them_are_refused(text: str, values: dict[str, Any]) -> None:
    with pytest.raises(ExpressionFailed, match="the values are too large for it"):
        give(text, VariableType.BOOL, **values)


def test_a_result_that_is_too_large_is_refused() -> None:
    text = f"rows.map(x, [{', '.join('x' * 20)}]).map(x, [{', '.join('x' * 20)}])"
    with pytest.raises(ExpressionFailed, match="too large"):
        give(text, VariableType.LIST, rows=list(range(1000)))


def test_an_ordinary_comprehension_over_many_rows_is_no_trouble() -> None:
    rows = [{"score": at % 7, "name": "x" * 30} for at in range(1000)]
    found = give("json.rows.filter(r, r.score > 3).map(r, r.name)", VariableType.LIST, json={"rows": rows})
    assert len(found) == sum(at % 7 > 3 for at in range(1000))


def test_a_number_beyond_doubles_fails_and_does_not_break() -> None:
    with pytest.raises(ExpressionFailed, match="too large"):
        give("json.n > 1", VariableType.BOOL, json={"n": 10**400})


@pytest.mark.parametrize(
    ("value", "type_", "fitting"),
    [
        (1, VariableType.INT, True),
        (1.0, VariableType.INT, True),
        (1.5, VariableType.INT, False),
        (2**63, VariableType.INT, False),
        (True, VariableType.INT, False),
        (1, VariableType.DOUBLE, True),
        (float("nan"), VariableType.DOUBLE, False),
        (10**400, VariableType.DOUBLE, False),
        (1, VariableType.BOOL, False),
        ("1", VariableType.INT, False),
        ([], VariableType.LIST, True),
        ({}, VariableType.LIST, False),
        ({}, VariableType.MAP, True),
        (None, VariableType.STRING, False),
    ],
)
def test_a_value_fits_a_type_or_does_not(value: Any, type_: VariableType, fitting: bool) -> None:
    assert fits(value, type_) is fitting


@given(st.text(max_size=60))
def test_any_text_is_evaluated_or_refused_in_words(text: str) -> None:
    try:
        found = give(text, VariableType.STRING)
    except (ExpressionInvalid, ExpressionFailed) as refused:
        found = refused.problem
    assert isinstance(found, str)
