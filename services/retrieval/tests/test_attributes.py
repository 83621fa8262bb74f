import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_kit.errors import AttributesInvalid
from loremesh_retrieval.domain import attributes

pytestmark = pytest.mark.unit


def test_a_term_keeps_type_and_value_apart():
    values = ["1", 1.0, True, "true", "", "1.0"]
    assert len({attributes.value_term("k", value) for value in values}) == len(values)


def test_equal_numbers_make_equal_terms():
    assert attributes.value_term("k", 1) == attributes.value_term("k", 1.0)
    assert attributes.value_term("k", 0.0) == attributes.value_term("k", -0.0)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_no_two_pairs_of_key_and_value_share_a_term(one, other):
    assert (attributes.value_term(*one) == attributes.value_term(*other)) == (one == other)


def test_terms_tell_of_presence_also_of_an_empty_list_but_not_of_null():
    seen = attributes.comparable({"empty": [], "null": None, "object": {"a": 1}})
    assert attributes.terms(seen) == ['["empty"]', '["object"]']


def test_lists_give_a_term_for_each_scalar_in_them():
    seen = attributes.comparable({"k": ["a", None, ["deep"], 2]})
    assert attributes.terms(seen) == ['["k"]', '["k", "a"]', '["k", 2.0]']


def test_booleans_are_no_numbers():
    assert attributes.numbers({"flag": True, "year": 2024, "list": (1.0, False)}) == {"year": [2024.0], "list": [1.0]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1e6),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01", 0.0),
        ("1969-12-31T23:59:59.999999Z", -1.0),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times_are_microseconds(text, expected):
    assert attributes.microseconds(text) == expected


@given(st.text(), st.text())
def test_stored_keys_are_safe_in_a_path_and_never_collide(one, other):
    stored = attributes.stored_key(one)
    assert not set('".[]\\') & set(stored)
    assert (stored == attributes.stored_key(other)) == (one == other)


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")], {"deep": [{"er": float("-inf")}]}])
def test_numbers_without_a_finite_value_are_refused(value):
    with pytest.raises(AttributesInvalid) as refused:
        attributes.check_finite({"k": value}, field="attributes")
    assert refused.value.violations[0].field == "attributes"
