"""What of a vector store may be shown at an instant."""

from collections.abc import Mapping
from dataclasses import dataclass

from loremesh_retrieval.domain.chunks import DocumentVersion


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation of a vector store's index, and the model of its vectors."""

    number: int
    model: str


@dataclass(frozen=True, slots=True)
class Live:
    """What was live when it was asked for: a generation and, by document id, the version that searches may show."""

    generation: Generation
    versions: Mapping[str, int]

    def shows(self, of: DocumentVersion) -> bool:
        """Whether chunks of this version may be shown; those of documents not asked about may not."""
        return self.versions.get(of.document_id) == of.version
