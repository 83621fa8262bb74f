"""Keys in the object store: made by us, never by a user."""

from urllib.parse import quote

_KEY_PARTS = 3


def tenant_prefix(tenant: str) -> str:
    """What all keys of a tenant begin with."""
    return f"{quote(tenant, safe='')}/"


def prefix(*, tenant: str, document_id: str) -> str:
    """What all keys of a document begin with."""
    return f"{tenant_prefix(tenant)}{document_id}/"


def document_of(key: str) -> str | None:
    """The document whose object this is; None for a key that is none of ours."""
    parts = key.split("/")
    return parts[1] if len(parts) == _KEY_PARTS else None


def upload_key(*, tenant: str, document_id: str, upload_id: str) -> str:
    """Where an upload's bytes go."""
    return f"{prefix(tenant=tenant, document_id=document_id)}{upload_id}"


def text_key(*, tenant: str, document_id: str, generation: int, version: int, fence: int) -> str:
    """Where a version's text goes; each attempt has a key of its own, so that a late one overwrites nothing."""
    return f"{prefix(tenant=tenant, document_id=document_id)}{generation}-{version}-{fence}.txt"
