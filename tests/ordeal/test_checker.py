"""The checker sees each way to break a promise, and nothing wrong where nothing is."""

from dataclasses import replace

import pytest
from loremesh_ingestion.domain.version import chunk_id

from tests.ordeal import text
from tests.ordeal.checker import Wrong, judge, leaks
from tests.ordeal.ledger import Entry, Ledger, Outcome, read
from tests.ordeal.passages import edition_in, generation_of
from tests.ordeal.stores import DocumentRow, JobRow, RunRow, Stores

pytestmark = pytest.mark.unit


def ok(call, at=1.0, **facts):
    return Entry(call=call, outcome=Outcome.OK, sent=at - 0.5, at=at, **facts)


GOOD = Stores(
    documents={"d": DocumentRow(id="d", state="READY", version=1, key="k")},
    jobs=[JobRow(id="j", kind="index", state="SUCCEEDED")],
    expected=frozenset({("d", 1, 1, 0)}),
    indexed=[("d", 1, 1, 0)],
    objects=frozenset({"d"}),
    events={"d": [1, 2, 3]},
)
UPLOADED = [ok("upload", document_id="d", key="k")]
WATCHED = ok("watch", key="d", events=[(1, "state_changed"), (2, "ready")])


def wrongs(entries, stores):
    return [finding.wrong for finding in judge(entries, stores)]


def test_nothing_is_wrong_where_all_is_well():
    assert judge([*UPLOADED, WATCHED], GOOD) == []


@pytest.mark.parametrize(
    ("wrong", "stores"),
    [
        (Wrong.LOST, Stores()),
        (Wrong.LOST, replace(GOOD, indexed=[])),
        (Wrong.LOST, replace(GOOD, documents={"d": DocumentRow(id="d", state="FAILED", reason="PARSER_CRASHED")})),
        (Wrong.STUCK, replace(GOOD, documents={"d": DocumentRow(id="d", state="PARSING", version=1)})),
        (Wrong.STUCK, replace(GOOD, jobs=[JobRow(id="j", kind="index", state="RUNNING")])),
        (Wrong.STUCK, replace(GOOD, unsent=1)),
        (Wrong.DUPLICATED, replace(GOOD, indexed=[("d", 1, 1, 0), ("d", 1, 1, 0)])),
        (Wrong.ORPHANED, replace(GOOD, indexed=[("d", 1, 1, 0), ("d", 1, 1, 1)])),
        (Wrong.UNTRUE, replace(GOOD, events={"d": [1, 3]})),
        (Wrong.DUPLICATED, replace(GOOD, effects=["m", "m"])),
    ],
)
def test_what_the_stores_hold_is_compared_with_what_was_acknowledged(wrong, stores):
    assert wrongs(UPLOADED, stores) == [wrong]


def test_one_key_with_two_documents_is_a_duplicate():
    documents = {**GOOD.documents, "e": DocumentRow(id="e", state="READY", version=1, key="k")}
    assert wrongs(UPLOADED, replace(GOOD, documents=documents)) == [Wrong.DUPLICATED]


def test_an_accepted_chat_job_is_finished_and_one():
    accepted = ok("chat_job", document_id="c", key="k")
    assert judge([accepted], Stores(chat_jobs={"c": "COMPLETED"})) == []
    assert wrongs([accepted], Stores()) == [Wrong.LOST]
    assert wrongs([accepted], Stores(chat_jobs={"c": "RUNNING"})) == [Wrong.STUCK]
    twice = Stores(chat_jobs={"c": "COMPLETED", "e": "COMPLETED"})
    assert wrongs([accepted, replace(accepted, document_id="e")], twice) == [Wrong.DUPLICATED]


RUN = RunRow(id="r", status="COMPLETED", finished={"facts": 1})


@pytest.mark.parametrize(
    ("wrong", "stores"),
    [
        (Wrong.LOST, Stores()),
        (Wrong.LOST, Stores(runs={"r": replace(RUN, status="FAILED")})),
        (Wrong.STUCK, Stores(runs={"r": replace(RUN, status="IN_PROGRESS")})),
        (Wrong.DUPLICATED, Stores(runs={"r": replace(RUN, finished={"facts": 2})})),
        (Wrong.DUPLICATED, Stores(runs={"r": replace(RUN, late=["facts"])})),
        (Wrong.UNTRUE, Stores(runs={"r": replace(RUN, differences=1)})),
        (Wrong.DUPLICATED, Stores(runs={"r": RUN}, calls={"key": 2})),
        (Wrong.DUPLICATED, Stores(runs={"r": RUN}, notes={"mark": 2})),
    ],
)
def test_an_accepted_run_ends_well_and_does_nothing_twice(wrong, stores):
    accepted = ok("run", document_id="r", key="k")
    assert judge([accepted], Stores(runs={"r": RUN}, calls={"key": 1}, notes={"mark": 1})) == []
    assert wrongs([accepted], stores) == [wrong]


def test_one_key_with_two_runs_is_a_duplicate():
    accepted = ok("run", document_id="r", key="k")
    stores = Stores(runs={"r": RUN, "s": replace(RUN, id="s")})
    assert wrongs([accepted, replace(accepted, document_id="s")], stores) == [Wrong.DUPLICATED]


def test_one_key_with_two_versions_is_a_duplicate():
    stores = replace(
        GOOD,
        documents={"d": DocumentRow(id="d", state="READY", version=3, key="k")},
    )
    again = Entry(call="index", outcome=Outcome.CUT, sent=1, at=2, document_id="d", key="i")
    assert wrongs([*UPLOADED, again, replace(again, outcome=Outcome.OK)], stores) == [Wrong.DUPLICATED]
    assert judge([*UPLOADED, again, replace(again, key="other")], stores) == []


def test_a_forgotten_deletion_is_found_in_every_store():
    found = wrongs([*UPLOADED, ok("delete", document_id="d")], GOOD)
    assert sorted(found) == sorted([Wrong.LOST, Wrong.ORPHANED, Wrong.STUCK])


def test_a_document_whose_deletion_was_cut_may_be_there_or_not():
    cut = Entry(call="delete", outcome=Outcome.CUT, sent=1, at=2, document_id="d")
    assert judge([*UPLOADED, cut], Stores(receipts={"d": True})) == []
    assert judge([*UPLOADED, cut], GOOD) == []


def test_a_search_sent_after_the_ok_of_a_deletion_finds_nothing_of_it():
    deleted = ok("delete", at=2.0, document_id="d")
    stores = Stores(receipts={"d": True})
    before = Entry(call="search", outcome=Outcome.OK, sent=1.9, at=2.5, hits=[("d", 1, 1, 0)])
    assert judge([deleted, before], stores) == []
    assert wrongs([deleted, replace(before, sent=2.1)], stores) == [Wrong.STALE]


def test_a_search_sent_after_a_version_was_seen_finds_none_before_it_and_mixes_none():
    seen = ok("seen", at=2.0, document_id="d", version=2)
    again = ok("index", document_id="d")
    stores = replace(GOOD, documents={"d": DocumentRow(id="d", state="READY", version=2)})
    search = Entry(call="search", outcome=Outcome.OK, sent=2.1, at=2.5, hits=[("d", 1, 1, 0)])
    assert wrongs([again, seen, search], stores) == [Wrong.STALE]
    assert wrongs([again, seen, replace(search, sent=1.0, hits=[("d", 1, 1, 0), ("d", 2, 1, 0)])], stores) == [
        Wrong.STALE
    ]
    assert judge([again, seen, replace(search, hits=[("d", 2, 1, 0)])], stores) == []


def search(at, *hits):
    return Entry(call="search", outcome=Outcome.OK, sent=at, at=at + 0.5, key="s", hits=hits)


def switch(sent, at, generation, outcome=Outcome.OK):
    return Entry(call="switched", outcome=outcome, sent=sent, at=at, key="s", version=generation)


def test_a_search_that_mixes_generations_is_stale():
    assert judge([search(1.0, ("d", 1, 1, 0), ("e", 1, 1, 0))], GOOD) == []
    asked = switch(0.5, 2.0, 2)
    assert wrongs([asked, search(1.0, ("d", 1, 1, 0), ("e", 1, 2, 0))], GOOD) == [Wrong.STALE]


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.CUT])
def test_a_generation_is_found_while_it_may_be_live_and_not_after_the_ok_of_a_switch(outcome):
    there, back = switch(1.0, 2.0, 2), switch(5.0, 6.0, 1, outcome)
    for at, generation in ((0.0, 1), (0.6, 2), (1.5, 1), (1.5, 2), (3.0, 2), (4.6, 1), (5.5, 2)):
        assert judge([there, back, search(at, ("d", 1, generation, 0))], GOOD) == []
    assert wrongs([there, back, search(0.1, ("d", 1, 2, 0))], GOOD) == [Wrong.STALE]
    assert wrongs([there, back, search(2.1, ("d", 1, 1, 0))], GOOD) == [Wrong.STALE]
    assert wrongs([there, back, search(7.0, ("d", 1, 2, 0))], GOOD) == [Wrong.STALE] * (outcome is Outcome.OK)
    assert wrongs([replace(there, outcome=Outcome.REFUSED), search(3.0, ("d", 1, 2, 0))], GOOD) == [Wrong.STALE]


def test_an_edition_is_not_found_after_a_newer_was_ready():
    current = ok("current", at=2.0, document_id="d", version=2)
    assert judge([current, search(1.9, ("d", 1, 1, 1))], GOOD) == []
    assert judge([current, search(2.1, ("d", 1, 1, 2), ("d", 1, 1, 0))], GOOD) == []
    assert wrongs([current, search(2.1, ("d", 1, 1, 1))], GOOD) == [Wrong.STALE]


def test_a_version_has_one_edition_and_a_later_one_none_before_it():
    assert judge([search(1.0, ("d", 1, 1, 1)), search(2.0, ("d", 2, 1, 1)), search(3.0, ("d", 3, 1, 2))], GOOD) == []
    assert wrongs([search(1.0, ("d", 1, 1, 1)), search(2.0, ("d", 1, 1, 2))], GOOD) == [Wrong.STALE]
    assert wrongs([search(1.0, ("d", 1, 1, 2)), search(2.0, ("d", 2, 1, 1))], GOOD) == [Wrong.STALE]


def test_a_document_ends_with_the_bytes_that_were_accepted_last():
    document = replace(GOOD.documents["d"], sha256="new")
    uploads = [ok("upload", document_id="d", key="k", text="old"), ok("replace", document_id="d", key="2", text="new")]
    assert judge(uploads, replace(GOOD, documents={"d": document})) == []
    old = replace(document, sha256="old")
    assert wrongs(uploads, replace(GOOD, documents={"d": old})) == [Wrong.LOST]
    assert wrongs(uploads, replace(GOOD, documents={"d": document}, others=[old])) == [Wrong.LOST]
    cut = replace(uploads[1], outcome=Outcome.CUT)
    assert judge([uploads[0], cut], replace(GOOD, documents={"d": document})) == []


def test_what_is_wrong_in_a_generation_that_is_not_live_is_wrong():
    waiting = DocumentRow(id="d", state="PARSING")
    assert wrongs(UPLOADED, replace(GOOD, others=[waiting])) == [Wrong.STUCK]
    assert wrongs(UPLOADED, replace(GOOD, others=[replace(waiting, state="FAILED")])) == [Wrong.LOST]


def test_content_that_was_there_makes_no_version():
    again = ok("upload_again", document_id="d")
    assert judge([*UPLOADED, again], GOOD) == []
    twice = replace(GOOD, documents={"d": DocumentRow(id="d", state="READY", version=2, key="k")})
    assert wrongs([*UPLOADED, again], twice) == [Wrong.DUPLICATED]


def test_the_generation_and_edition_of_a_passage_are_in_its_id_and_text():
    place = {"tenant": "default", "document_id": "d", "version": 2, "index": 3}
    for store, generation in ((text.SWITCHED, 1), (text.SWITCHED, 7), (text.STORE, 1)):
        chunk = chunk_id(vector_store_id=store, generation=generation, **place)
        assert generation_of(chunk, store, "d", 2) == generation
        assert generation_of(chunk, store, "d", 1) == 0
    assert [edition_in(text.body(1, 4, edition).split("\n\n")[0]) for edition in (1, 2)] == [1, 2]
    assert text.body(1, 4, 1).split("\n\n")[1:] == text.body(1, 4, 2).split("\n\n")[1:]


def test_a_version_that_goes_back_is_stale():
    assert wrongs([ok("seen", document_id="d", version=2)], GOOD) == [Wrong.STALE]


@pytest.mark.parametrize(
    "events",
    [
        [(1, "state_changed"), (3, "ready")],
        [(1, "state_changed"), (1, "state_changed"), (2, "ready")],
        [(1, "ready"), (2, "ready")],
        [(1, "state_changed")],
    ],
)
def test_a_stream_with_a_gap_a_repeat_or_no_single_end_is_untrue(events):
    assert Wrong.UNTRUE in wrongs([replace(WATCHED, events=events)], GOOD)


def test_a_stream_that_was_cut_is_taken_up_where_it_was():
    first = replace(WATCHED, outcome=Outcome.CUT, events=[(1, "state_changed")])
    assert judge([first, replace(WATCHED, events=[(2, "ready")])], GOOD) == []


def test_a_chat_without_the_last_word_was_not_whole():
    events = [(1, "run_started"), (2, "completed")]
    assert wrongs([ok("chat", key="1", events=events, text="word1 ")], GOOD) == [Wrong.UNTRUE]
    assert judge([ok("chat", key="1", events=events, text="word1 Over.")], GOOD) == []


def test_a_secret_is_found_wherever_it_comes_out():
    (finding,) = leaks(["canary-1"], {"log agent": "error: canary-1", "replies": ""})
    assert (finding.wrong, finding.what) == (Wrong.LEAKED, "a secret is in log agent")


def test_a_ledger_reads_back_as_it_was_written(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.note("upload", Outcome.OK, sent=1.0, document_id="d", key="k")
    ledger.close()
    assert read(tmp_path / "ledger.jsonl") == ledger.entries
