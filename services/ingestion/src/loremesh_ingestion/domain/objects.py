"""Keys in the object store: made by us, never by a user."""

from urllib.parse import quote


def prefix(*, tenant: str, document_id: str) -> str:
    """What all keys of a document begin with."""
    return f"{quote(tenant, safe='')}/{document_id}/"


def upload_key(*, tenant: str, document_id: str, upload_id: str) -> str:
    """Where an upload's bytes go."""
    return f"{prefix(tenant=tenant, document_id=document_id)}{upload_id}"


def text_key(*, tenant: str, document_id: str, generation: int, version: int, fence: int) -> str:
    """Where a version's text goes; each attempt has a key of its own, so that a late one overwrites nothing."""
    return f"{prefix(tenant=tenant, document_id=document_id)}{generation}-{version}-{fence}.txt"
