"""A chunk: the piece of a document that is embedded, found and cited."""

import unicodedata
from dataclasses import dataclass

_SPECIAL_TOKENS = 2  # the model's own marks around every text


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of the extracted text: `text` is `extracted[start:end]`, in code points.

    `page` is the page, slide or sheet it starts on (None where the format has none); `heading_path` the headings
    above it, outermost first; `token_count` never exceeds the strategy's `max_tokens`.
    """

    index: int
    text: str
    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    token_count: int

    def embedding_text(self, title: str = "", *, model_tokens: int = 512) -> str:
        """Return the chunk with title and headings above it, within `model_tokens` whatever the model's tokenizer.

        The context gives way, never the chunk: what does not fit is left out from the outermost heading on.
        """
        context = [*dict.fromkeys(part for part in (title.strip(), *self.heading_path) if part)]
        room = model_tokens - _SPECIAL_TOKENS - self.token_count
        while context and self._repeats(context):
            context.pop()
        while context and _most_tokens(_line(context)) > room:
            context.pop(0)
        return f"{_line(context)}\n\n{self.text}" if context else self.text

    def _repeats(self, context: list[str]) -> bool:
        return self.text.lstrip("# ").startswith(context[-1])


def _line(context: list[str]) -> str:
    return " > ".join(context)


def _most_tokens(text: str) -> int:
    # A token stands for one character or more, once accents and Hangul syllables are taken apart as models do.
    return len(unicodedata.normalize("NFKD", text))
