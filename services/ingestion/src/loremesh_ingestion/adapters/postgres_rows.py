"""Rows of Postgres as the domain knows them, and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from psycopg.types.json import Jsonb

from loremesh_ingestion.domain.chunking import ChunkingStrategy, StrategyKind
from loremesh_ingestion.domain.document import Document, DocumentState, Failure
from loremesh_ingestion.domain.version import Version

DOCUMENT = ", ".join(f"documents.{field.name}" for field in fields(Document))
VERSION = ", ".join(f"document_versions.{field.name} AS version_{field.name}" for field in fields(Version))


def document(row: Mapping[str, Any]) -> Document:
    """The document in a row with at least the columns DOCUMENT."""
    values = {field.name: row[field.name] for field in fields(Document)}
    return Document(
        **values
        | {
            "state": DocumentState(row["state"]),
            "failure": _failure(row["failure"]),
            "chunking_strategy": strategy(row["chunking_strategy"]),
        }
    )


def version(row: Mapping[str, Any]) -> Version:
    """The version in a row with at least the columns VERSION."""
    values = {field.name: row[f"version_{field.name}"] for field in fields(Version)}
    return Version(**values | {"chunking_strategy": strategy(values["chunking_strategy"]) or ChunkingStrategy()})


def strategy(value: Mapping[str, Any] | None) -> ChunkingStrategy | None:
    """A chunking strategy as it is kept; None where nothing is."""
    return None if value is None else ChunkingStrategy(**{**value, "kind": StrategyKind(value["kind"])})


def json(value: Any) -> Jsonb | None:
    """A dataclass, or anything of JSON, as a jsonb parameter; None stays null."""
    if value is None:
        return None
    return Jsonb(asdict(value) if hasattr(value, "__dataclass_fields__") else value)


def _failure(value: Mapping[str, Any] | None) -> Failure | None:
    return None if value is None else Failure(**{**value, "stage": DocumentState(value["stage"])})
