"""One ordeal from start to end: load and faults at the same time, a time to heal, and the verdict."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.ordeal import plan, reading, text
from tests.ordeal.checker import Finding, Promise, judge, leaks
from tests.ordeal.clients import Clients
from tests.ordeal.conductor import Conductor
from tests.ordeal.crews import Crews, noting
from tests.ordeal.generations import Switching
from tests.ordeal.ledger import Ledger
from tests.ordeal.mesh import Mesh, running
from tests.ordeal.promises import made_by
from tests.ordeal.provider import Script, scripted
from tests.ordeal.report import Report

Say = Callable[[str], None]
_HEAL_SECONDS = 120.0
# A generation that is being built when documents stop coming in is built to its end.
_BUILT_PER_SECOND = 3.0
_LEASES_OF_QUIET = 2
_UPLOADERS = 8
_SEARCH_PAUSE = 0.2
_CHATS = 40
_POLL_SECONDS = 0.5
_LAST_EDITION = 3
_DELETED, _INDEXED_AGAIN, _WATCHED, _REPLACED, _UPLOADED_AGAIN = 0.15, 0.1, 0.2, 0.15, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of it."""

    seed: int = 1
    documents: int = 200
    runs: int = 12
    faults: int = 30
    seconds: float = 80.0
    lease: float = 4.0
    # How many documents that are not finished an uploader has at most.
    window: int = 4


async def ordeal(size: Size, *, directory: Path, say: Say) -> Report:
    """Run it below `directory` and judge."""
    canaries = [f"canary-{secrets.token_hex(8)}" for _ in range(2)]
    faults = plan.faults(seed=size.seed, count=size.faults, seconds=size.seconds, lease=size.lease)
    for fault in faults:
        say(str(fault))
    script = Script(seed=size.seed, canary=canaries[0])
    with Ledger(directory / "ledger.jsonl") as ledger, scripted(script) as provider_url:
        async with (
            noting() as (notes, tool_address),
            running(
                directory / "mesh",
                lease=size.lease,
                provider_url=provider_url,
                provider_key=canaries[1],
                tool_address=tool_address,
            ) as mesh,
        ):
            promises = await made_by(mesh)
            conductor = Conductor(mesh=mesh, say=say)
            clients = Clients(
                target=mesh.target,
                ledger=ledger,
                seed=size.seed,
                documents=size.documents,
                patience=size.seconds + _HEAL_SECONDS,
            )
            crews = Crews(clients=clients, notes=notes, tool_address=tool_address)
            async with clients, crews.at_work():
                await _load_and_break(clients, crews, conductor, faults, size)
                return await _heal_and_judge(mesh, crews, conductor, size, promises, canaries, say)


async def _load_and_break(
    clients: Clients, crews: Crews, conductor: Conductor, faults: Sequence[plan.Fault], size: Size
) -> None:
    stop, over, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        searching = group.create_task(_search(clients, stop))
        breaking = group.create_task(conductor.play(faults))
        chatting = group.create_task(_chat(clients, size))
        running = group.create_task(_kick_off(crews, size))
        switching = group.create_task(Switching(clients=clients).go_on(over=over, done=done))
        breaking.add_done_callback(lambda _: over.set())
        async with asyncio.TaskGroup() as uploads:
            numbers = iter(range(size.documents))
            began = time.monotonic()
            for _ in range(_UPLOADERS):
                uploads.create_task(_upload(clients, numbers, size, began, uploads))
        await asyncio.wait({breaking, chatting, running})
        done.set()
        await switching
        stop.set()
        await searching


async def _upload(clients: Clients, numbers: Iterator[int], size: Size, began: float, group: asyncio.TaskGroup) -> None:
    """Each document at its time, unless too many before it are not finished; and then what may become of it."""
    unfinished: list[str] = []
    for number in numbers:
        await asyncio.sleep(max(0.0, began + size.seconds * number / size.documents - time.monotonic()))
        await _make_room(clients, unfinished, size.window)
        document_id = await clients.upload(number)
        accepted = clients.ledger.acknowledged("upload")
        if not document_id:
            continue
        unfinished.append(document_id)
        chance = random.Random(f"{size.seed}/{number}/fate")  # noqa: S311 - the same for the same seed
        fate, other = chance.random(), chance.choice(accepted).document_id
        if fate < _DELETED:
            await clients.delete(other)
        elif fate < _DELETED + _INDEXED_AGAIN:
            await clients.index(other, key=f"index-{size.seed}-{number}")
            unfinished.append(other)
        elif fate < _DELETED + _INDEXED_AGAIN + _WATCHED:
            group.create_task(clients.watch(document_id))
        elif fate < _DELETED + _INDEXED_AGAIN + _WATCHED + _REPLACED:
            group.create_task(_replace(clients, document_id, number))
        elif fate < _DELETED + _INDEXED_AGAIN + _WATCHED + _REPLACED + _UPLOADED_AGAIN:
            await clients.upload_again(document_id, number)
        await clients.look(other)


async def _make_room(clients: Clients, unfinished: list[str], window: int) -> None:
    """Wait for the oldest until they are fewer than the window; what is stuck is not waited for for ever."""
    until = time.monotonic() + clients.patience
    while len(unfinished) >= window and time.monotonic() < until:
        if await clients.unfinished(unfinished[0]):
            await asyncio.sleep(_POLL_SECONDS)
        else:
            del unfinished[0]


async def _replace(clients: Clients, document_id: str, number: int) -> None:
    """Twice: for some the second waits until the first is seen, for others it comes upon it."""
    for edition in range(2, _LAST_EDITION + 1):
        version = await clients.replace(document_id, number, edition=edition)
        if version is None:
            return
        if edition == _LAST_EDITION or number % 2:
            await clients.follow(document_id, edition=edition, after=version)


async def _search(clients: Clients, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await clients.search()
        await asyncio.sleep(_SEARCH_PAUSE)


async def _chat(clients: Clients, size: Size) -> None:
    for number in range(_CHATS):
        await clients.chat(number)
        await clients.chat_job(number)
        await asyncio.sleep(size.seconds / _CHATS)


async def _kick_off(crews: Crews, size: Size) -> None:
    for number in range(size.runs):
        await crews.kickoff(number)
        await asyncio.sleep(size.seconds / size.runs)


async def _heal_and_judge(
    mesh: Mesh,
    crews: Crews,
    conductor: Conductor,
    size: Size,
    promises: frozenset[Promise],
    canaries: list[str],
    say: Say,
) -> Report:
    clients = crews.clients
    last_fault = time.time() - (time.monotonic() - conductor.last_at)
    with suppress(TimeoutError):
        await conductor.heal((*plan.SERVICES, *plan.STORES))
    quiet = await reading.until_quiet(mesh, seconds=_HEAL_SECONDS + size.documents / _BUILT_PER_SECOND)
    # Whoever holds a lease would be found by now, and what is only late would be done.
    await asyncio.sleep(_LEASES_OF_QUIET * size.lease)
    recovery = await reading.settled_after(
        mesh,
        last_fault,
        _accepted_before(clients.ledger, conductor.last_at),
        {text.STORE: 1, text.SWITCHED: _live_at(clients.ledger, conductor.last_at)},
    )
    runs = await reading.runs(mesh)
    differences = await crews.replayed(runs)
    runs = {run.id: replace(run, differences=differences[run.id]) for run in runs.values()}
    stores = replace(await reading.read(mesh, runs), calls=crews.notes.calls, notes=crews.notes.texts)
    entries = clients.ledger.entries
    findings: list[Finding] = judge(entries, stores, promises=promises)
    findings += leaks(canaries, reading.texts(mesh) | {"replies": "\n".join(clients.replies)})
    findings += leaks(_passwords(mesh), reading.texts(mesh) | {"replies": "\n".join(clients.replies)})
    say(f"quiet: {quiet.reached} after {quiet.seconds:.1f} s")
    return Report(
        seed=size.seed,
        window=size.window * _UPLOADERS,
        findings=findings,
        entries=entries,
        faults=conductor.done,
        missed=conductor.missed,
        recovery=recovery,
        promises=promises,
    )


def _live_at(ledger: Ledger, instant: float) -> int:
    """Which generation was switched to last."""
    switched = [each.version for each in ledger.acknowledged("switched") if each.at <= instant]
    return switched[-1] if switched else 1


def _accepted_before(ledger: Ledger, instant: float) -> set[str]:
    """Documents for which nothing was asked after the last fault."""
    asking = ("upload", "index", "replace", "upload_again")
    late = {entry.document_id for entry in ledger.entries if entry.call in asking and entry.at > instant}
    return {entry.document_id for entry in ledger.acknowledged("upload")} - late


def _passwords(mesh: Mesh) -> list[str]:
    """The mesh's own secrets are canaries too: they are in every connection string a driver might print."""
    keys = mesh.secrets
    return [keys.postgres, keys.ingestion, keys.agent, keys.crew, keys.nats, keys.s3_secret_access_key]
