"""The REST surface against its own OpenAPI document, with requests made up by Schemathesis."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

# Not among them: whether every request that breaks the document is refused. The transcoder reads "5" as a number and
# passes over unknown fields, as the JSON form of protobuf says it may; what must be refused is in test_errors.py.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
SEED = "1729"
# Each of these asks the language model.
SLOW = ("ChatService_Chat", "ChatService_StreamChat")


def schemathesis(mesh: Any, folder: Path, *arguments: str) -> None:
    command = [
        *(Path(sys.executable).parent / "schemathesis", "run", f"{mesh.url}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--seed", SEED, "--request-timeout", "60", "--suppress-health-check", "all"),
        *("--no-color", "--warnings", "off", *arguments),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def test_every_answer_is_what_the_document_says(mesh: Any, tmp_path: Path) -> None:
    slow = [word for name in SLOW for word in ("--exclude-operation-id", name)]
    schemathesis(mesh, tmp_path, "--phases", "examples,coverage,fuzzing", "--max-examples", "15", *slow)


def test_so_is_every_answer_of_the_model(mesh: Any, tmp_path: Path) -> None:
    slow = [word for name in SLOW for word in ("--include-operation-id", name)]
    schemathesis(mesh, tmp_path, "--phases", "fuzzing", "--max-examples", "4", *slow)
