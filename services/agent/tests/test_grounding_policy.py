"""What an agent tells of an answer that is not supported, by its policy."""

import pytest
from loremesh_agent import prompts
from loremesh_agent.domain.claims import check
from loremesh_agent.domain.definitions import GroundingPolicy
from loremesh_agent.domain.grounding import Judged, apply

from .conftest import LIGHTHOUSE, SOUP

pytestmark = pytest.mark.unit

WORDING = prompts.load("full")
HIGH, OLD, RED = "It is 77 metres high [1].", "It was built in 1128 [1].", "It was painted red by an emperor [1]."
REFUSED = Judged(WORDING.refusal, grounded=False, cited=frozenset())


def judged(policy: GroundingPolicy, text: str) -> Judged:
    claims = check(text, question="How high is the lighthouse of Genoa?", passages=[LIGHTHOUSE, SOUP])
    return apply(policy, text, claims, WORDING)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{HIGH} {OLD}", f"{HIGH} {OLD}"),
        (f"{HIGH} {RED} {OLD}", f"{HIGH} {OLD}"),
        ("It is 77 metres high.", "It is 77 metres high [1]."),
        ("It is 77 metres high [2].", "It is 77 metres high [1]."),
        ("It is 77 metres high [1][2].", "It is 77 metres high [1]."),
        (f"It is known:\n\n- {HIGH}\n- {RED}\n- {OLD}", f"It is known:\n\n- {HIGH}\n- {OLD}"),
    ],
)
def test_drop_leaves_out_what_nothing_supports_and_cites_what_does(text: str, told: str) -> None:
    result = judged(GroundingPolicy.DROP, text)
    assert (result.text, result.grounded, result.cited) == (told, True, {1})


def test_abstain_says_nothing_where_anything_is_unsupported() -> None:
    assert judged(GroundingPolicy.ABSTAIN, f"{HIGH} {RED}") == REFUSED
    assert judged(GroundingPolicy.ABSTAIN, f"{HIGH} {OLD}") == Judged(
        f"{HIGH} {OLD}", grounded=True, cited=frozenset({1})
    )


@pytest.mark.parametrize("policy", [GroundingPolicy.DROP, GroundingPolicy.ABSTAIN])
def test_an_answer_of_which_nothing_is_left_is_refused(policy: GroundingPolicy) -> None:
    assert judged(policy, RED) == REFUSED
    assert judged(policy, WORDING.refusal) == REFUSED


def test_annotate_changes_nothing() -> None:
    text = f"{HIGH} {RED}"
    assert judged(GroundingPolicy.ANNOTATE, text) == Judged(text, grounded=True, cited=frozenset({1}))
    assert not judged(GroundingPolicy.ANNOTATE, RED).grounded
