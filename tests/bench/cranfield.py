"""The Cranfield collection: documents, questions and graded judgements."""

import csv
import gzip
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent.parent / "data" / "cranfield"


@dataclass(frozen=True)
class Record:
    """A document or a question; questions have no title."""

    id: str
    text: str
    title: str = ""


def _read(name: str) -> list[Record]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Record(id=row["_id"], text=row["text"], title=row.get("title", "")) for row in rows]


def documents() -> list[Record]:
    """All 1,398 documents."""
    return _read("corpus.jsonl.gz")


def questions() -> list[Record]:
    """All 225 questions."""
    return _read("queries.jsonl.gz")


def judgements() -> dict[str, dict[str, int]]:
    """Question id to document id to relevance, 1 to 4."""
    found: dict[str, dict[str, int]] = {}
    with gzip.open(DATA / "qrels.tsv.gz", "rt", encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            found.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return found


def ndcg(ranking: Sequence[str], relevance: dict[str, int], *, at: int = 10) -> float:
    """Normalised discounted cumulative gain with gains 2^rel - 1 (Burges et al. 2005); documents count once."""

    def dcg(gains: Iterable[int]) -> float:
        return sum((2**gain - 1) / math.log2(place + 2) for place, gain in enumerate(gains))

    best = dcg(sorted(relevance.values(), reverse=True)[:at])
    unique = list(dict.fromkeys(ranking))[:at]
    return dcg(relevance.get(document, 0) for document in unique) / best if best else 0.0
