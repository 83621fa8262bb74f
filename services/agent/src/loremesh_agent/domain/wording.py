"""The words around a question: what a prompt says beside it, and what is said without a model."""

from dataclasses import dataclass, replace


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
    # Follows instructions of an agent's own, which take the place of `system`.
    rules: str = ""

    def instructed(self, instructions: str, *, refusal: str = "") -> "Wording":
        """The same with an agent's own instructions, and with its own words of refusal if there are any."""
        system = f"{instructions.strip()}\n\n{self.rules}".strip()
        return replace(self, system=system, refusal=refusal or self.refusal)
