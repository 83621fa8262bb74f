"""The search index: finds passages, explains what it found, and keeps tenants apart."""
