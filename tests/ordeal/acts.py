"""What a client may ask for, each from a state in which it can be asked."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.ordeal.lot import Lot

SMALL = "The keeper lit the lamp.\n\nThe ship came home."
# Three batches of chunks.
LARGE = "\n\n".join(f"On day {day} the sea was calm." for day in range(70))
_numbers = itertools.count()


def another(text: str) -> str:
    """The text as nobody has uploaded it before: what is there already would be recognised."""
    return f"Log {next(_numbers)}.\n\n{text}"


@dataclass(frozen=True, slots=True)
class Act:
    """`prepare` gives the id of the document that `perform` is about."""

    name: str
    prepare: Callable[[Lot], Awaitable[str]]
    perform: Callable[[Lot, str], Awaitable[object]]


async def _nothing(lot: Lot) -> str:
    del lot
    return ""


async def _a_ready_document(lot: Lot) -> str:
    document_id = await lot.upload(another(SMALL))
    await lot.quiet()
    await lot.look(document_id)
    return document_id


ACTS = (
    Act("upload", _nothing, lambda lot, _: lot.upload(another(SMALL))),
    Act("upload in batches", _nothing, lambda lot, _: lot.upload(another(LARGE))),
    Act("index again", _a_ready_document, lambda lot, document_id: lot.index(document_id)),
    Act("give a title", _a_ready_document, lambda lot, document_id: lot.retitle(document_id, "The keeper")),
    Act("delete", _a_ready_document, lambda lot, document_id: lot.delete(document_id)),
)
