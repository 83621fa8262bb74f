"""Conditions: when they hold, what they saw, and what follows where they cannot be decided."""

from typing import Any

import pytest
from loremesh_crew.domain.conditions import OWN, Seen, check, same, written
from loremesh_crew.domain.definitions import Condition, ConditionKind, VariableType

from .flow_doubles import FAILURE, SUCCESS, both, contains, contrary, either, equals, expression

pytestmark = pytest.mark.unit

NAMES = {"count": VariableType.INT, "tags": VariableType.LIST, **OWN}
SEEN = Seen(
    output="It is Approved.",
    output_json={"score": 7},
    variables={"count": 3, "tags": ["a", 1.0]},
    inputs={"topic": "bees"},
    outputs={"write": "a draft"},
    visit=2,
)
BROKEN = expression("json.missing > 1")


def held(condition: Condition, seen: Seen = SEEN) -> bool:
    return check(condition, NAMES, seen).held


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition(), True),
        (SUCCESS, True),
        (FAILURE, False),
        (contains("approved"), True),
        (contains("denied"), False),
        (Condition(kind=ConditionKind.OUTPUT_CONTAINS, text="approved", case_sensitive=True), False),
        (Condition(kind=ConditionKind.OUTPUT_CONTAINS, text="Approved", case_sensitive=True), True),
        (Condition(kind=ConditionKind.OUTPUT_MATCHES, text=r"A\w+d\.$"), True),
        (Condition(kind=ConditionKind.OUTPUT_MATCHES, text="^Approved"), False),
        (equals("count", 3.0), True),
        (equals("count", 4), False),
        (equals("tags", ["a", 1]), True),
        (expression("count > 2 && inputs.topic == 'bees' && outputs.write == 'a draft' && visit == 2"), True),
        (expression("json.score < 5"), False),
        (both(SUCCESS, contains("approved")), True),
        (both(SUCCESS, contains("denied")), False),
        (either(FAILURE, contains("approved")), True),
        (either(FAILURE, contains("denied")), False),
        (contrary(FAILURE), True),
        (contrary(SUCCESS), False),
    ],
)
def test_a_condition_holds_or_does_not(condition: Condition, expected: bool) -> None:
    assert held(condition) is expected


def test_a_failure_is_seen_as_one() -> None:
    seen = Seen(succeeded=False, reason="TASK_FAILED")
    assert held(FAILURE, seen)
    assert not held(SUCCESS, seen)
    assert check(FAILURE, NAMES, seen).saw == "failed: TASK_FAILED"
    assert held(
        expression("!succeeded && reason == 'TASK_FAILED'"),
        Seen(succeeded=False, reason="TASK_FAILED", variables=SEEN.variables),
    )


def test_an_expression_that_fails_does_not_hold_and_says_why() -> None:
    checked = check(BROKEN, NAMES, SEEN)
    assert not checked.held
    assert checked.error == 'Key not found in map : "missing"'
    assert checked.saw == 'json = {"score":7}'


@pytest.mark.parametrize(
    ("condition", "undecided"),
    [
        (contrary(BROKEN), True),
        (both(BROKEN, SUCCESS), True),
        (both(BROKEN, FAILURE), False),
        (either(BROKEN, FAILURE), True),
        (contrary(both(BROKEN, SUCCESS)), True),
    ],
)
def test_what_rests_on_a_failed_part_does_not_hold(condition: Condition, undecided: bool) -> None:
    checked = check(condition, NAMES, SEEN)
    assert not checked.held
    assert bool(checked.error) is undecided


def test_one_part_of_or_that_holds_is_enough_beside_one_that_fails() -> None:
    checked = check(either(BROKEN, SUCCESS), NAMES, SEEN)
    assert checked.held
    assert not checked.error


def test_a_pattern_that_would_take_long_is_not_decided() -> None:
    pattern = Condition(kind=ConditionKind.OUTPUT_MATCHES, text="a.{0,999}b.{0,900}Q")
    checked = check(pattern, NAMES, Seen(output="abxy" * 50_000))
    assert not checked.held
    assert checked.error == "the text is too long for it"
    assert held(Condition(kind=ConditionKind.OUTPUT_MATCHES, text="y$"), Seen(output="abxy" * 50_000))


def test_every_part_is_told_with_what_it_saw() -> None:
    data = check(both(contains("approved"), equals("count", 9)), NAMES, SEEN).data()
    assert data == {
        "condition": 'and(output_contains("approved"), variable_equals(count, 9))',
        "held": False,
        "parts": [
            {"condition": 'output_contains("approved")', "held": True, "saw": "It is Approved."},
            {"condition": "variable_equals(count, 9)", "held": False, "saw": "3"},
        ],
    }


def test_of_what_was_seen_500_characters_are_told_and_of_a_condition_200() -> None:
    checked = check(contains("x" * 900), NAMES, Seen(output="y" * 900))
    assert len(checked.saw) == 500
    assert len(checked.condition) == 200
    assert len(written(either(*[contains("x" * 100)] * 20))) == 200


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (False, 0, False),
        (None, None, True),
        (None, False, False),
        ("1", 1, False),
        ([1, [2]], (1.0, [2.0]), True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        ({"a": True}, {"a": 1}, False),
    ],
)
def test_values_are_equal_as_json_is(left: Any, right: Any, equal: bool) -> None:
    assert same(left, right) is equal
    assert same(right, left) is equal
