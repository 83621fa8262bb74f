"""What the programs of a mesh are told of one another: addresses, accounts, passwords."""

from collections.abc import Mapping
from dataclasses import dataclass

from loremesh_cli.mesh import local_model, nats, postgres, seaweedfs, services
from loremesh_cli.mesh.credentials import Credentials
from loremesh_cli.mesh.home import Home

BUCKET = "loremesh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """`ports` has one for each of `plan.port_names()` and for `gateway`; `caller` is the environment of `up`."""

    home: Home
    ports: Mapping[str, int]
    credentials: Credentials
    caller: Mapping[str, str]

    def of_service(self, service: str) -> dict[str, str]:
        """Return a service's environment: ours, then what the caller says, then where this mesh itself is."""
        database = self._role(service, "DATABASE_URL", service) if service in services.WITH_DATABASE else {}
        return {**self._shared(), **database, **self.caller, **services.targets(self.ports)}

    def of_migration(self, service: str) -> dict[str, str]:
        """Return the environment of a service's migration, which runs as the owner of the schema."""
        return {**self._role(service, "MIGRATE_DATABASE_URL", services.owner(service)), **self.of_service(service)}

    def administrator(self) -> dict[str, str]:
        """Return the variable by which the database is prepared."""
        return {postgres.ADMIN_VARIABLE: self._admin_url()}

    def s3(self) -> seaweedfs.S3Access:
        """Return the access to the mesh's own S3."""
        return seaweedfs.access(
            [self.ports[name] for name in seaweedfs.port_names()],
            access_key_id=self.credentials.s3_access_key_id,
            secret_access_key=self.credentials.s3_secret_access_key,
            bucket=BUCKET,
        )

    def _shared(self) -> dict[str, str]:
        shared = {
            "NATS_URL": nats.url(self.ports["nats"], password=self.credentials.nats),
            "LOCAL_MODEL_URL": local_model.url(self.ports["local-model"]),
            # Without a key, too: a server of one's own may want none.
            "AGENT_PROVIDER": "openai" if self.caller.get("OPENAI_BASE_URL") else "",
            "RETRIEVAL_DATA_DIR": str(self.home.root / "retrieval"),
            # Python's threads would each keep an arena of freed memory.
            "MALLOC_ARENA_MAX": "2",
        }
        if self.caller.get("S3_ENDPOINT_URL"):
            return shared  # none of our keys belong there
        keys = self.s3()
        return shared | {
            "S3_ENDPOINT_URL": keys.endpoint_url,
            "S3_ACCESS_KEY_ID": keys.access_key_id,
            "S3_SECRET_ACCESS_KEY": keys.secret_access_key,
            "S3_REGION": keys.region,
            "S3_BUCKET": keys.bucket,
        }

    def _role(self, service: str, variable: str, role: str) -> dict[str, str]:
        password = getattr(self.credentials, role)
        return {f"{service.upper()}_{variable}": postgres.with_role(self._admin_url(), role=role, password=password)}

    def _admin_url(self) -> str:
        ours = postgres.url(
            self.ports["postgres"],
            user=postgres.SUPERUSER,
            password=self.credentials.postgres,
            database=postgres.DATABASE,
        )
        return self.caller.get("DATABASE_URL") or ours
