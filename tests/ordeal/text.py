"""Documents to upload: generated, each with words of its own by which searches find it."""

import random

_WORDS = (
    *("harbour", "lantern", "keeper", "ledger", "storm", "granite", "rope", "anchor", "tide", "signal", "fog"),
    *("oil", "lens", "stair", "gull", "chart", "reef", "mast", "barrel", "bell", "captain", "crew", "island", "light"),
    *("lamp", "wave", "wind", "night", "morning", "iron", "copper", "salt", "bread", "letter"),
)
_SENTENCE = 12


def key(seed: int, number: int) -> str:
    """The mark of a document, also its upload's idempotency key."""
    return f"ordeal-{seed}-{number}"


def body(seed: int, number: int) -> str:
    """From one paragraph up to some dozens: most are indexed in one job, some in batches."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 - the same text for the same seed
    paragraphs = chance.choice((1, 2, 3, 5, 8)) if number % 20 else 120
    return "\n\n".join(_paragraph(chance, number) for _ in range(paragraphs))


def _paragraph(chance: random.Random, number: int) -> str:
    sentences = (" ".join(chance.choices(_WORDS, k=_SENTENCE)).capitalize() for _ in range(chance.randint(2, 6)))
    return f"Entry mark{number}. " + ". ".join(sentences) + "."


def query(chance: random.Random, documents: int) -> str:
    """A question after one document, or after what all have in common."""
    return f"mark{chance.randrange(documents)} {chance.choice(_WORDS)}"
