"""The words around a question: what a prompt says beside it, and what is said without a model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """One way to ask; templates are of `string.Template`."""

    system: str
    # The question's message: `$passages` and `$question`.
    user: str
    # One passage in it: `$number`, `$title` and `$text`.
    passage: str
    # Whether passages keep their line breaks; where they end with their line they may not.
    multiline: bool
    # Where the model is made to stop.
    stop: tuple[str, ...]
    # Said when the documents do not hold the answer.
    refusal: str
    # Added to an answer that no passage supports; empty adds nothing.
    unsupported: str
    # Added then: what the documents do say, `$sentence` of the passage `$number`; empty adds nothing.
    quotation: str
    # Whether an answer ends where it begins to repeat itself.
    ends_at_repetition: bool
