"""Judges: reads the ledger and the stores, knows nothing of how either came about, and says what is wrong."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.ordeal.ledger import Entry, Outcome
from tests.ordeal.stores import RunRow, Stores

SETTLED = frozenset({"READY", "FAILED"})
FINISHED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
RUN_ENDS = frozenset({"COMPLETED", "INCOMPLETE", "FAILED", "CANCELLED", "EXPIRED"})
TERMINAL = frozenset({"ready", "failed", "deleted", "completed", "incomplete", "cancelled"})
# The scripted provider ends every whole answer with it; a note on its sources may follow.
LAST_WORD = "Over."
# Why an answer does not end with it: nothing was found to ask the model about.
NOT_ASKED = "the model was not asked"


class Wrong(StrEnum):
    """The ways to break a promise: the columns of the table."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    STUCK = "stuck"
    STALE = "stale"
    ORPHANED = "orphaned"
    UNTRUE = "untrue"
    LEAKED = "leaked"


class Promise(StrEnum):
    """What a mesh may not make yet: where its rpc is missing its check is left out, and the report says so."""

    STRICT_SEARCH = "strict search"
    IDEMPOTENCY = "idempotency keys"
    UPLOAD_KEYS = "idempotency keys of uploads"


EVERY_PROMISE = frozenset(Promise)


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise."""

    wrong: Wrong
    what: str


def judge(entries: Sequence[Entry], stores: Stores, *, promises: Collection[Promise] = EVERY_PROMISE) -> list[Finding]:
    """Every broken promise; empty when all were kept."""
    checks = [lost(entries, stores), stuck(stores), index(stores), deletions(entries, stores)]
    checks += [regressions(entries, stores), logs(stores), streams(entries), messages(stores)]
    checks += [contents(entries, stores), editions(entries), generations(entries)]
    checks += [chat_jobs(entries, stores), runs(entries, stores), side_effects(stores)]
    if Promise.IDEMPOTENCY in promises:
        checks.append(versions(entries, stores))
    if Promise.UPLOAD_KEYS in promises:
        checks.append(effects(entries, stores))
    if Promise.STRICT_SEARCH in promises:
        checks.append(searches(entries))
    return [finding for check in checks for finding in check]


def tally(findings: Iterable[Finding]) -> dict[Wrong, int]:
    """How often each promise was broken; zeros too."""
    counted = Counter(finding.wrong for finding in findings)
    return {wrong: counted[wrong] for wrong in Wrong}


def lost(entries: Sequence[Entry], stores: Stores) -> Iterator[Finding]:
    """G1: what was accepted becomes READY unless somebody asked for it to be deleted: all that is sent is readable."""
    deleted = {entry.document_id for entry in entries if entry.call == "delete"}
    for entry in _ok(entries, "upload"):
        document = stores.documents.get(entry.document_id)
        if document is None:
            if entry.document_id not in deleted:
                yield Finding(Wrong.LOST, f"document {entry.document_id} was accepted and is nowhere")
        elif document.state == "FAILED":
            yield Finding(Wrong.LOST, f"document {document.id} is FAILED: {document.reason or 'no reason'}")
    for document in stores.others:
        if document.state == "FAILED":
            what = f"document {document.id} is FAILED in another generation: {document.reason or 'no reason'}"
            yield Finding(Wrong.LOST, what)


def contents(entries: Sequence[Entry], stores: Stores) -> Iterator[Finding]:
    """G1: a document ends with the bytes that were accepted for it last, in every generation."""
    uploads = [entry for entry in entries if entry.call in ("upload", "replace") and entry.text]
    last = {entry.document_id: entry for entry in uploads}
    for document in [*stores.documents.values(), *stores.others]:
        entry = last.get(document.id)
        if entry is not None and entry.outcome is Outcome.OK and document.sha256 != entry.text:
            yield Finding(Wrong.LOST, f"document {document.id} has other bytes than were accepted for it last")


def stuck(stores: Stores) -> Iterator[Finding]:
    """G2: nothing waits for ever."""
    for document in [*stores.documents.values(), *stores.others]:
        if document.state not in SETTLED:
            yield Finding(Wrong.STUCK, f"document {document.id} is {document.state}")
    for job in stores.jobs:
        if job.state not in FINISHED:
            yield Finding(Wrong.STUCK, f"job {job.kind} {job.id} is {job.state}")
    if stores.unsent:
        yield Finding(Wrong.STUCK, f"{stores.unsent} messages were never sent")


def index(stores: Stores) -> Iterator[Finding]:
    """G3: the index holds what Postgres expects, each chunk once, and nothing else."""
    points = Counter(stores.indexed)
    for place in sorted(stores.expected - points.keys()):
        yield Finding(Wrong.LOST, f"chunk {place} is not in the index")
    for place in sorted(points.keys() - stores.expected):
        yield Finding(Wrong.ORPHANED, f"chunk {place} is in the index and nowhere else")
    for place, count in sorted(points.items()):
        if count > 1:
            yield Finding(Wrong.DUPLICATED, f"chunk {place} is in the index {count} times")


def deletions(entries: Sequence[Entry], stores: Stores) -> Iterator[Finding]:
    """G5: what was deleted is gone from every store, and its receipt says so."""
    for document_id in {entry.document_id for entry in _ok(entries, "delete")}:
        document = stores.documents.get(document_id)
        if document is not None and document.state in SETTLED:
            yield Finding(Wrong.LOST, f"the deletion of document {document_id} was accepted and forgotten")
        if document_id in stores.objects:
            yield Finding(Wrong.ORPHANED, f"bytes of the deleted document {document_id} are still there")
        if not stores.receipts.get(document_id):
            yield Finding(Wrong.STUCK, f"the receipt of document {document_id} is not finished")


def regressions(entries: Sequence[Entry], stores: Stores) -> Iterator[Finding]:
    """G4: a version that was seen to be live is never followed by an older one."""
    seen: dict[str, int] = defaultdict(int)
    for entry in sorted(_ok(entries, "seen"), key=lambda entry: entry.sent):
        if entry.version < seen[entry.document_id]:
            yield Finding(Wrong.STALE, f"document {entry.document_id} went back to version {entry.version}")
        seen[entry.document_id] = max(seen[entry.document_id], entry.version)
    for document_id, version in seen.items():
        document = stores.documents.get(document_id)
        if document is not None and document.version < version:
            yield Finding(Wrong.STALE, f"document {document_id} ended at version {document.version}, not {version}")


def effects(entries: Sequence[Entry], stores: Stores) -> Iterator[Finding]:
    """G6: one key, one effect."""
    made: dict[str, set[str]] = defaultdict(set)
    for document in stores.documents.values():
        made[document.key].add(document.id)
    for entry in _ok(entries, "upload"):
        made[entry.key].add(entry.document_id)
    for key, ids in made.items():
        if key and len(ids) > 1:
            yield Finding(Wrong.DUPLICATED, f"key {key} made {len(ids)} documents")


def chat_jobs(entries: Sequence[Entry], stores: Stores) -> Iterator[Finding]:
    """G1, G2 and G6 for chat: a job that was accepted is finished, and a key makes one."""
    made: dict[str, set[str]] = defaultdict(set)
    for entry in _ok(entries, "chat_job"):
        made[entry.key].add(entry.document_id)
        if entry.document_id not in stores.chat_jobs:
            yield Finding(Wrong.LOST, f"chat job {entry.document_id} was accepted and is nowhere")
    for job_id, status in stores.chat_jobs.items():
        if status in ("QUEUED", "RUNNING"):
            yield Finding(Wrong.STUCK, f"chat job {job_id} is {status}")
    for key, ids in made.items():
        if len(ids) > 1:
            yield Finding(Wrong.DUPLICATED, f"key {key} made {len(ids)} chat jobs")


def runs(entries: Sequence[Entry], stores: Stores) -> Iterator[Finding]:
    """G1, G2, G6 and G7 for crews: a run that was accepted ends well, a key makes one, nothing done is done again."""
    made: dict[str, set[str]] = defaultdict(set)
    for entry in _ok(entries, "run"):
        made[entry.key].add(entry.document_id)
        if entry.document_id not in stores.runs:
            yield Finding(Wrong.LOST, f"run {entry.document_id} was accepted and is nowhere")
    for run in stores.runs.values():
        yield from _run(run)
    for key, ids in made.items():
        if len(ids) > 1:
            yield Finding(Wrong.DUPLICATED, f"key {key} made {len(ids)} runs")


def _run(run: RunRow) -> Iterator[Finding]:
    if run.status not in RUN_ENDS:
        yield Finding(Wrong.STUCK, f"run {run.id} is {run.status}")
    elif run.status != "COMPLETED" and run.root:
        yield Finding(Wrong.LOST, f"run {run.id} is {run.status}: {run.reason or 'no reason'}")
    for task, count in run.finished.items():
        if count > 1:
            yield Finding(Wrong.DUPLICATED, f"task {task} of run {run.id} was completed {count} times")
    for task in run.late:
        yield Finding(Wrong.DUPLICATED, f"task {task} of run {run.id} was begun after it was completed")
    if run.differences:
        yield Finding(Wrong.UNTRUE, f"run {run.id} is decided otherwise in {run.differences} places")


def side_effects(stores: Stores) -> Iterator[Finding]:
    """G7: a tool that changes something is called once for each intention, and each run intends it once."""
    for key, count in stores.calls.items():
        if count > 1:
            yield Finding(Wrong.DUPLICATED, f"the call {key} was made {count} times")
    for note, count in stores.notes.items():
        if count > 1:
            yield Finding(Wrong.DUPLICATED, f"{note} was noted {count} times")


def versions(entries: Sequence[Entry], stores: Stores) -> Iterator[Finding]:
    """G6: a document has at most as many versions as there were keys to index it anew or replace it under."""
    asked: dict[str, set[str]] = defaultdict(set)
    for number, entry in enumerate(entries):
        if entry.call in ("index", "replace"):
            asked[entry.document_id].add(entry.key or f"without a key {number}")
    for document in stores.documents.values():
        if document.version > 1 + len(asked[document.id]):
            what = f"document {document.id} has {document.version} versions, for {len(asked[document.id])} keys"
            yield Finding(Wrong.DUPLICATED, what)


def messages(stores: Stores) -> Iterator[Finding]:
    """A message has one effect, however often it comes."""
    for message_id, count in Counter(stores.effects).items():
        if count > 1:
            yield Finding(Wrong.DUPLICATED, f"message {message_id} had {count} effects")


def searches(entries: Sequence[Entry]) -> Iterator[Finding]:
    """G4 and G5: after the OK of a deletion, or the sight of what is new, no search returns what was before."""
    told = [entry for call in ("delete", "seen", "current") for entry in _ok(entries, call)]
    told.sort(key=lambda entry: entry.at, reverse=True)
    gone: set[str] = set()
    known: dict[str, int] = {}
    current: dict[str, int] = {}
    for search in sorted(_ok(entries, "search"), key=lambda entry: entry.sent):
        while told and told[-1].at < search.sent:
            entry = told.pop()
            if entry.call == "delete":
                gone.add(entry.document_id)
            else:
                newest = known if entry.call == "seen" else current
                newest[entry.document_id] = max(newest.get(entry.document_id, 0), entry.version)
        yield from _stale(search, gone, known)
        for document_id, _, _, edition in search.hits:
            if 0 < edition < current.get(document_id, 0):
                yield Finding(Wrong.STALE, f"a search found edition {edition} of {document_id} after a newer was READY")


def _stale(search: Entry, gone: Collection[str], known: Mapping[str, int]) -> Iterator[Finding]:
    versions: dict[str, set[int]] = defaultdict(set)
    for document_id, version, *_ in search.hits:
        versions[document_id].add(version)
    for document_id, found in versions.items():
        if document_id in gone:
            yield Finding(Wrong.STALE, f"a search found document {document_id} after it was deleted")
        if min(found) < known.get(document_id, 0):
            yield Finding(Wrong.STALE, f"a search found version {min(found)} of {document_id} after a newer was live")
        if len(found) > 1:
            yield Finding(Wrong.STALE, f"a search mixed versions {sorted(found)} of document {document_id}")


def editions(entries: Sequence[Entry]) -> Iterator[Finding]:
    """G4: a version has one content, and no later version an earlier content."""
    found: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for search in _ok(entries, "search"):
        for document_id, version, _, edition in search.hits:
            if edition:
                found[document_id][version].add(edition)
    for document_id, versions in found.items():
        newest = 0
        for version, seen in sorted(versions.items()):
            if len(seen) > 1:
                what = f"version {version} of document {document_id} was found with editions {sorted(seen)}"
                yield Finding(Wrong.STALE, what)
            if min(seen) < newest:
                yield Finding(
                    Wrong.STALE, f"version {version} of document {document_id} is of edition {min(seen)} again"
                )
            newest = max(newest, *seen)


def generations(entries: Sequence[Entry]) -> Iterator[Finding]:
    """G4: no search mixes generations of an index, and after the OK of a switch none finds another than that."""
    asked: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.call == "switched" and entry.outcome is not Outcome.REFUSED:
            asked[entry.key].append(entry)
    for search in _ok(entries, "search"):
        found = {generation for _, _, generation, _ in search.hits}
        if len(found) > 1:
            yield Finding(Wrong.STALE, f"a search mixed generations {sorted(found)}")
        for generation in sorted(found - _live(asked[search.key], search)):
            yield Finding(Wrong.STALE, f"a search found generation {generation}, which was not live")


def _live(switches: Sequence[Entry], search: Entry) -> set[int]:
    """What may have been live at some instant of a search: the first, until something else was asked for."""
    known = [switch for switch in switches if switch.outcome is Outcome.OK and switch.at < search.sent]
    last, since = (known[-1].version, known[-1].at) if known else (1, 0.0)
    # One whose answer was cut, or has not come yet, may have had its effect or not.
    return {last} | {switch.version for switch in switches if switch.at > since and switch.sent < search.at}


def logs(stores: Stores) -> Iterator[Finding]:
    """G8: every event log is numbered from 1 without a gap."""
    for run_id, numbers in stores.events.items():
        if list(numbers) != list(range(1, len(numbers) + 1)):
            yield Finding(Wrong.UNTRUE, f"the log of {run_id} is numbered {list(numbers)}")


def streams(entries: Sequence[Entry]) -> Iterator[Finding]:
    """G8: a stream, resumed after each cut, has no gap and no repeat, and says that it is whole when it is."""
    watched: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.call in ("watch", "chat"):
            watched[entry.call, entry.key].append(entry)
    for (call, key), parts in watched.items():
        events = [(int(seq), str(kind)) for part in parts for seq, kind in part.events]
        if [seq for seq, _ in events] != list(range(1, len(events) + 1)):
            yield Finding(Wrong.UNTRUE, f"{call} {key} had the numbers {[seq for seq, _ in events]}")
        ends = [position for position, (_, kind) in enumerate(events, 1) if kind in TERMINAL]
        last = parts[-1]
        if ends not in ([], [len(events)]) or (last.outcome is Outcome.OK and not ends):
            yield Finding(Wrong.UNTRUE, f"{call} {key} ended {len(ends)} times: {[kind for _, kind in events]}")
        whole = last.reason == NOT_ASKED or LAST_WORD in last.text
        if call == "chat" and ends and events[-1][1] == "completed" and not whole:
            yield Finding(Wrong.UNTRUE, f"chat {key} was said to be whole and ends with {last.text[-20:]!r}")


def leaks(canaries: Iterable[str], places: Mapping[str, str]) -> Iterator[Finding]:
    """G14: no planted secret is in anything a caller or a log reader sees; `places` are texts by name."""
    for canary in canaries:
        for place, text in places.items():
            if canary in text:
                yield Finding(Wrong.LEAKED, f"a secret is in {place}")


def _ok(entries: Iterable[Entry], call: str) -> Iterator[Entry]:
    return (entry for entry in entries if entry.call == call and entry.outcome is Outcome.OK)
