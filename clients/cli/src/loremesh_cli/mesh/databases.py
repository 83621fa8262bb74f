"""Prepares a PostgreSQL for the services: the database, and for each service a schema and its two roles.

Run as `python -m loremesh_cli.mesh.databases HOME` it does so with the administrator's address in ADMIN_DATABASE_URL.
"""

import os
import sys
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from loremesh_cli.mesh import services
from loremesh_cli.mesh.credentials import load
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.postgres import ADMIN_VARIABLE, DATABASE

CONNECT_SECONDS = 10


def create_database(server_url: str) -> None:
    """Make the database `loremesh` on the server unless it is there."""
    with psycopg.connect(server_url, autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(DATABASE)))


def provision(admin_url: str, *, passwords: dict[str, str]) -> None:
    """Make roles and schemas in the database, and set the roles' passwords. May be run again at any time.

    `passwords` has one for each role: `<service>` and `<service>_owner`. The administrator must be allowed to create
    roles and schemas.
    """
    with psycopg.connect(admin_url, connect_timeout=CONNECT_SECONDS) as connection:
        for service in services.WITH_DATABASE:
            owner = services.owner(service)
            for role in (owner, service):
                _role(connection, role, passwords[role])
            _execute(connection, "GRANT {} TO CURRENT_USER", Identifier(owner))
            _execute(
                connection, "CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}", Identifier(service), Identifier(owner)
            )


def _role(connection: Connection, role: str, password: str) -> None:
    found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    statement = "ALTER ROLE {} LOGIN PASSWORD {}" if found else "CREATE ROLE {} LOGIN PASSWORD {}"
    _execute(connection, statement, Identifier(role), Literal(password))


def _execute(connection: Connection, statement: LiteralString, *names: Identifier | Literal) -> None:
    connection.execute(SQL(statement).format(*names))


def main() -> None:
    """Prepare the database for the mesh in the data directory named on the command line."""
    home = Home(Path(sys.argv[1]))
    credentials = load(home.secrets)
    admin_url = os.environ[ADMIN_VARIABLE]
    if "--create" in sys.argv[2:]:
        create_database(urlunsplit(urlsplit(admin_url)._replace(path="/postgres")))
    roles = [role for service in services.WITH_DATABASE for role in (service, services.owner(service))]
    provision(admin_url, passwords={role: getattr(credentials, role) for role in roles})


if __name__ == "__main__":
    main()
