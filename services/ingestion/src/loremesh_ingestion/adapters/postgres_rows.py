"""Rows of Postgres as the domain knows them, and back."""

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from json import dumps
from typing import Any

from psycopg.types.json import Jsonb

from loremesh_ingestion.domain.chunking import ChunkingStrategy, StrategyKind
from loremesh_ingestion.domain.document import Changes, Document, DocumentState, Failure
from loremesh_ingestion.domain.version import Version

_DOCUMENT = tuple(field.name for field in fields(Document))
_VERSION = tuple(field.name for field in fields(Version))
LIVE = """documents.generation = (
    SELECT store.generation FROM vector_stores AS store WHERE store.id = documents.vector_store_id
)"""
# Of a row of `documents`, or of its id alone: the generations and models whose index may hold chunks of it, as pairs.
INDEX_PLACES = """coalesce((
    SELECT jsonb_agg(DISTINCT jsonb_build_array(line.generation, versions.embedding_model))
    FROM documents AS line JOIN document_versions AS versions ON versions.document_id = line.key
    WHERE line.id = documents.id
), '[]')"""
DOCUMENT = ", ".join(f"{LIVE} AS live" if name == "live" else f"documents.{name}" for name in _DOCUMENT)
VERSION = ", ".join(f"document_versions.{name} AS version_{name}" for name in _VERSION)


def flat(value: Any) -> dict[str, Any]:
    """A dataclass's fields as they are; `dataclasses.asdict` would copy each value in them."""
    return {name: getattr(value, name) for name in value.__slots__}


_dumps = partial(dumps, default=flat)


def document(row: Mapping[str, Any]) -> Document:
    """The document in a row with at least the columns DOCUMENT."""
    values = {name: row[name] for name in _DOCUMENT}
    return Document(
        **values
        | {
            "state": DocumentState(row["state"]),
            "failure": _failure(row["failure"]),
            "chunking_strategy": strategy(row["chunking_strategy"]),
            "changes": None if row["changes"] is None else Changes(**row["changes"]),
        }
    )


def version(row: Mapping[str, Any]) -> Version:
    """The version in a row with at least the columns VERSION."""
    values = {name: row[f"version_{name}"] for name in _VERSION}
    return Version(**values | {"chunking_strategy": strategy(values["chunking_strategy"]) or ChunkingStrategy()})


def strategy(value: Mapping[str, Any] | None) -> ChunkingStrategy | None:
    """A chunking strategy as it is kept; None where nothing is."""
    return None if value is None else ChunkingStrategy(**{**value, "kind": StrategyKind(value["kind"])})


def json(value: Any) -> Jsonb | None:
    """Anything of JSON and dataclasses as a jsonb parameter; None stays null."""
    return None if value is None else Jsonb(value, dumps=_dumps)


def _failure(value: Mapping[str, Any] | None) -> Failure | None:
    return None if value is None else Failure(**{**value, "stage": DocumentState(value["stage"])})
