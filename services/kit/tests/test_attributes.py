import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_kit.attributes import MAX_BYTES, check
from loremesh_kit.errors import AttributesInvalid

pytestmark = pytest.mark.unit

SCALARS = st.text(max_size=20) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
GOOD = st.dictionaries(st.text(min_size=1, max_size=64), SCALARS | st.lists(SCALARS, max_size=5), max_size=64)


@given(GOOD)
def test_scalars_and_lists_of_them_are_attributes(attributes):
    size = len(json.dumps(attributes, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    with nullcontext() if size <= MAX_BYTES else pytest.raises(AttributesInvalid):
        check(attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        {f"key{number}": 1 for number in range(65)},
        {"": 1},
        {"k" * 65: 1},
        {"nested": {"a": 1}},
        {"matrix": [[1]]},
        {"nothing": None},
        {"endless": float("inf")},
        {"not": float("nan")},
        {"long": "x" * MAX_BYTES},
    ],
)
def test_everything_else_is_refused_in_words(attributes):
    with pytest.raises(AttributesInvalid) as refused:
        check(attributes, field="document.attributes")
    assert refused.value.violations[0].field == "document.attributes"
