"""Whether a text has begun to go round in circles, as small models' do."""

from loremesh_agent.domain.sentences import sentences

_SHORTEST_SENTENCE = 20
_LONGEST_ROUND = 12
_SHORTEST_ROUND = 3
_ROUNDS = 3
# More than any round of words takes, three times.
_TAIL = 600


def repeats_itself(text: str) -> bool:
    """Whether the last whole sentence was said before, or the last words three times in a row."""
    return _sentence_again(text) or _words_again(text[-_TAIL:].split())


def _sentence_again(text: str) -> bool:
    if not text.rstrip().endswith((".", "!", "?")):
        return False
    *before, last = (each.casefold() for each in sentences(text)) if text.strip() else ("",)
    return len(last) >= _SHORTEST_SENTENCE and last in before


def _words_again(words: list[str]) -> bool:
    # The last word may still grow.
    words = words[:-1]
    return any(
        len(words) >= _ROUNDS * size and words[-size:] * _ROUNDS == words[-_ROUNDS * size :]
        for size in range(_SHORTEST_ROUND, _LONGEST_ROUND + 1)
    )
