"""Passwords of the mesh's own servers: random, made once, readable by the owner of the data directory alone."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


def _random() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class Credentials:
    """One secret per account. `<service>_owner` owns a schema, `<service>` is who the service runs as."""

    postgres: str = field(default_factory=_random)
    ingestion_owner: str = field(default_factory=_random)
    ingestion: str = field(default_factory=_random)
    agent_owner: str = field(default_factory=_random)
    agent: str = field(default_factory=_random)
    crew_owner: str = field(default_factory=_random)
    crew: str = field(default_factory=_random)
    nats: str = field(default_factory=_random)
    s3_access_key_id: str = field(default_factory=lambda: f"loremesh{secrets.token_hex(6)}")
    s3_secret_access_key: str = field(default_factory=_random)


def load(path: Path) -> Credentials:
    """Return the credentials kept in a file of mode 0600, making the missing ones."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    known = {each.name for each in fields(Credentials)}
    credentials = Credentials(**{name: value for name, value in kept.items() if name in known})
    if asdict(credentials) != kept:
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(credentials), file, indent=2)
        fresh.replace(path)
    return credentials
