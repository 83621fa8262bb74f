"""Magika, a small model that knows some two hundred content types; loaded when first needed."""

import os
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from magika import Magika


_UNKNOWN = "application/octet-stream"
_SAMPLE = 1 << 16  # characters or bytes; the model looks at the beginning and the end of what it is given


def classify(text: str) -> tuple[str, str, bool]:
    """Return the label, the media type, and whether it is code, of something known to be text."""
    output = _model().identify_bytes(text[:_SAMPLE].encode()).output
    return str(output.label), output.mime_type, output.group == "code"


def media_type_of(data: bytes) -> str:
    """Return the media type of what is known to be no text, `application/octet-stream` when no other fits."""
    output = _model().identify_bytes(data[:_SAMPLE]).output
    return _UNKNOWN if output.is_text else output.mime_type


@cache
def _model() -> "Magika":
    from magika import Magika

    # The runtime makes one thread per processor it may use, and they spin: for one small file that is mostly waste.
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        return Magika()
    finally:
        os.sched_setaffinity(0, allowed)
