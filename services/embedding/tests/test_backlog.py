"""The order of work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_embedding.domain.backlog import Backlog, Priority

pytestmark = pytest.mark.unit

BUDGET = 512


def backlog(**requests: list[int]) -> Backlog[str]:
    queue: Backlog[str] = Backlog(budget=BUDGET)
    for owner, lengths in requests.items():
        queue.add(owner, lengths, priority=Priority.DOCUMENT)
    return queue


def drain(queue: Backlog[str]) -> list[list[tuple[str, int]]]:
    taken = []
    while batch := queue.take():
        taken.append(batch)
    return taken


def test_small_requests_share_a_batch():
    assert sorted(backlog(a=[20, 20], b=[20], c=[21]).take()) == [("a", 0), ("a", 1), ("b", 0), ("c", 0)]


def test_short_and_long_texts_do_not_share_a_batch():
    assert drain(backlog(a=[250, 10, 250, 10])) == [[("a", 1), ("a", 3)], [("a", 0), ("a", 2)]]


def test_a_small_request_does_not_wait_for_a_large_one():
    batches = drain(backlog(large=[256] * 40, small=[256]))
    assert next(place for place, batch in enumerate(batches) if ("small", 0) in batch) <= 1


def test_a_text_over_the_budget_is_a_batch_by_itself():
    assert drain(backlog(a=[BUDGET + 1, BUDGET + 1])) == [[("a", 0)], [("a", 1)]]


def test_urgent_texts_come_first_and_alone():
    queue = backlog(document=[10])
    queue.add("rerank", [10], priority=Priority.RERANK)
    queue.add("query", [10], priority=Priority.QUERY)
    assert drain(queue) == [[("query", 0)], [("rerank", 0)], [("document", 0)]]


def test_patient_texts_are_kept_from_who_takes_urgent_ones_only():
    assert backlog(a=[10]).take(up_to=Priority.QUERY) == []


def test_discarded_texts_are_never_taken():
    queue = backlog(a=[10, 300], b=[10])
    queue.take()
    queue.discard("a")
    queue.discard("a")
    assert queue.waiting(Priority.DOCUMENT) == 0
    assert drain(queue) == []


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.integers(1, 256), min_size=1, max_size=30)))
def test_every_text_is_taken_once_within_budget_and_little_is_padding(requests: dict[str, list[int]]):
    batches = drain(backlog(**requests))
    assert sorted(text for batch in batches for text in batch) == sorted(
        (owner, index) for owner, lengths in requests.items() for index in range(len(lengths))
    )
    for batch in batches:
        lengths = [requests[owner][index] for owner, index in batch]
        padded = max(lengths) * len(lengths)
        assert padded <= BUDGET or len(lengths) == 1
        assert padded - sum(lengths) <= max(16, sum(lengths) // 16)
