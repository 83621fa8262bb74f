"""What documents come to, in plain words: the model that their life is compared with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from loremesh_ingestion.domain.document import UNDERWAY, DocumentState

Place = tuple[str, int]


@dataclass
class Line:
    """What a document's row has to say, in one generation."""

    state: DocumentState = DocumentState.UPLOADED
    version: int = 0
    latest: int = 1
    retryable: bool = False

    def wants(self, version: int) -> bool:
        return self.latest == version and self.state in UNDERWAY

    def begin(self) -> None:
        self.state, self.latest = DocumentState.UPLOADED, self.latest + 1

    def publish(self, version: int) -> None:
        self.state, self.version = DocumentState.READY, version


@dataclass
class Model:
    """Lines by document and generation, titles and receipts by document."""

    lines: dict[Place, Line] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    receipts: dict[str, str] = field(default_factory=dict)
    generations: set[int] = field(default_factory=lambda: {1})
    live: int = 1
    last: int = 1

    def of(self, document_id: str) -> list[Line]:
        return [line for (id_, _), line in self.lines.items() if id_ == document_id]

    def seen(self, document_id: str) -> Line:
        return self.lines[document_id, self.live]

    def kept(self) -> list[str]:
        return [id_ for id_ in self.titles if id_ not in self.receipts]

    def beside(self) -> int:
        return next(iter(self.generations - {self.live}))

    def visible(self, generation: int) -> dict[str, int]:
        found = {id_: line for (id_, number), line in self.lines.items() if number == generation}
        return {
            id_: line.version
            for id_, line in found.items()
            if line.version and line.state is not DocumentState.DELETING
        }

    def is_missing(self, document_id: str, generation: int) -> bool:
        """Whether something that searches see of the document would be lost in the other generation."""
        seen, other = self.seen(document_id), self.lines.get((document_id, generation))
        if other is None or not seen.version:
            return other is None
        is_ended = other.state is DocumentState.READY or (other.state is DocumentState.FAILED and not other.retryable)
        return not is_ended and (seen.state is DocumentState.READY or not other.version)

    def build(self, generation: int) -> None:
        for id_ in self.kept() if generation in self.generations else ():
            self.lines.setdefault((id_, generation), Line(latest=self.seen(id_).latest))

    def remove(self, is_doomed: Callable[[Place], bool]) -> None:
        self.lines = {place: line for place, line in self.lines.items() if not is_doomed(place)}
