"""How a download names its file."""

import re
from urllib.parse import quote

_UNSAFE = re.compile(r"[^\w .()\-]", re.ASCII)


def content_disposition(filename: str) -> str:
    """A Content-Disposition header (RFC 6266), ASCII only: download it, under this name."""
    plain = _UNSAFE.sub("_", filename) or "document"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename or 'document', safe='')}"
