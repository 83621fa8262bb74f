"""Documents to upload: generated, each with words of its own by which searches find it."""

import random

_WORDS = (
    *("harbour", "lantern", "keeper", "ledger", "storm", "granite", "rope", "anchor", "tide", "signal", "fog"),
    *("oil", "lens", "stair", "gull", "chart", "reef", "mast", "barrel", "bell", "captain", "crew", "island", "light"),
    *("lamp", "wave", "wind", "night", "morning", "iron", "copper", "salt", "bread", "letter"),
)
_SENTENCE = 12
STORE, SWITCHED = "ordeal", "ordeal-switched"
_SWITCHED = 3


def key(seed: int, number: int) -> str:
    """The mark of a document, also its upload's idempotency key."""
    return f"ordeal-{seed}-{number}"


def body(seed: int, number: int, edition: int = 1) -> str:
    """From one paragraph up to some dozens: most are indexed in one job, some in batches.

    Another edition begins with another paragraph, which says which edition it is; the others are as they were.
    """
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 - the same text for the same seed
    paragraphs = chance.choice((1, 2, 3, 5, 8)) if number % 20 else 120
    rest = [_paragraph(chance, f"Entry mark{number}.") for _ in range(paragraphs - 1)]
    chance.seed(f"{seed}/{number}/{edition}")
    return "\n\n".join([_paragraph(chance, f"Entry mark{number}, edition{edition}."), *rest])


def _paragraph(chance: random.Random, beginning: str) -> str:
    sentences = (" ".join(chance.choices(_WORDS, k=_SENTENCE)).capitalize() for _ in range(chance.randint(2, 6)))
    return f"{beginning} " + ". ".join(sentences) + "."


def store(number: int) -> str:
    """Every fifth document is in a vector store whose generations are built and switched; none of them is large."""
    return SWITCHED if number % 5 == _SWITCHED else STORE


def query(chance: random.Random, documents: int, *, of: str = STORE) -> str:
    """A question after one document of a vector store, or after what all have in common."""
    numbers = range(documents) if of == STORE else range(min(_SWITCHED, documents - 1), documents, 5)
    return f"mark{chance.choice(numbers)} {chance.choice(_WORDS)}"
