"""Regular expressions of strangers: they mean what they mean elsewhere, and take no age."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh_kit.patterns import MAX_LENGTH, PatternRefused, compiled, found

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(.*a){12}x", "^(([a-z])+.)+[A-Z]([a-z])+$", "a*a*a*a*a*b"])
def test_patterns_that_explode_elsewhere_do_not(pattern):
    begin = time.process_time()
    assert not found(pattern, "a" * 2000 + "!")
    assert time.process_time() - begin < 3


_PIECES = st.sampled_from(
    [
        "a",
        "b",
        ".",
        "[ab]",
        "[^a]",
        "[a-c-]",
        "\\d",
        "\\w",
        "\\s",
        "\\.",
        "\\-",
        "^",
        "$",
        "(a|b)",
        "(?:ab|c)",
        "\\x62",
        "{",
        "-",
    ]
)
_COUNTS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "*?", "{0}"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_PIECES, _COUNTS), max_size=6), st.booleans(), st.text(alphabet="abc1 .-\n", max_size=8))
def test_patterns_mean_what_they_mean_elsewhere(pieces, grouped, text):
    pattern = "".join(piece + (count if piece not in ("^", "$") else "") for piece, count in pieces)
    pattern = f"({pattern})*b|{pattern}" if grouped else pattern
    # Python's `$` also passes before a last line break; RE2's and ECMA-262's do not.
    same = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    assert found(pattern, text) == bool(same.search(text))


@given(st.text(alphabet="ab()[]{}|*+?^$\\.-,:=!<1dwsbBpk0", max_size=20))
def test_any_pattern_is_understood_or_refused(source):
    try:
        found(source, "ab1")
    except PatternRefused:
        return


def test_a_pattern_too_long_for_its_text_or_for_us_is_refused():
    with pytest.raises(PatternRefused, match="1000 characters"):
        compiled("x" * (MAX_LENGTH + 1))
    with pytest.raises(PatternRefused, match="too long for it"):
        found("a.{0,999}b.{0,900}Q", "abxy" * 50_000)
