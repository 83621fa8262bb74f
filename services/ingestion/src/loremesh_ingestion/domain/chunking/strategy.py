"""How a document is to be cut."""

from dataclasses import dataclass
from enum import StrEnum

MIN_TOKENS = 16
MAX_TOKENS = 2048
DEFAULT_TOKENS = 256


class StrategyKind(StrEnum):
    """Where cuts may fall. AUTO chooses by format: structure, code, or sentences for plain text."""

    AUTO = "auto"
    FIXED = "fixed"
    SENTENCES = "sentences"
    STRUCTURE = "structure"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class ChunkingStrategy:
    """A kind with its sizes in tokens; neighbouring chunks share up to `overlap_tokens`.

    Chunks do not overlap unless asked to: cuts fall where a thought ends and chunks carry their headings, so
    repeated text would only cost embeddings and fill answers with twins. For FIXED, whose cuts fall anywhere, 40
    of 256 is a good choice.
    """

    kind: StrategyKind = StrategyKind.AUTO
    max_tokens: int = DEFAULT_TOKENS
    overlap_tokens: int = 0

    def __post_init__(self) -> None:
        """Refuse with ValueError what the contract's own rules refuse earlier, with a better reason."""
        if not MIN_TOKENS <= self.max_tokens <= MAX_TOKENS:
            message = f"max_tokens must lie in {MIN_TOKENS}..{MAX_TOKENS}"
            raise ValueError(message)
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            message = "overlap_tokens must lie between 0 and half of max_tokens"
            raise ValueError(message)
