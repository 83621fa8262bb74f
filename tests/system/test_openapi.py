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
# Each of these asks the language model.
SLOW = ("ChatService_Chat", "ChatService_StreamChat")
# Ends when the caller leaves.
ENDLESS = ("ApprovalService_WatchApprovals",)
# A filter may hold filters, and agents, crews and flows have many fields: the systematic phase would not come to an end
# with them, so these are fuzzed only.
LARGE = (
    *("DocumentService_ListDocuments_1", "RetrievalService_Search", "RetrievalService_ExplainSearch"),
    *("AgentService_CreateAgent", "AgentService_UpdateAgent", "AgentService_ValidateAgent"),
    *("CrewService_CreateCrew", "CrewService_UpdateCrew", "CrewService_ValidateCrew"),
    *("FlowService_CreateFlow", "FlowService_UpdateFlow", "FlowService_ValidateFlow"),
    "ChatJobService_CreateChatJob",
)


def schemathesis(mesh: Any, folder: Path, *arguments: str) -> None:
    config = Path(__file__).with_name("schemathesis.toml")
    command = [
        *(Path(sys.executable).parent / "schemathesis", "--config-file", config),
        *("run", f"{mesh.url}/openapi.json", "--checks", ",".join(CHECKS), *arguments),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def operations(option: str, names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in (f"--{option}-operation-id", name)]


def test_every_answer_is_what_the_document_says(mesh: Any, tmp_path: Path) -> None:
    left_out = operations("exclude", SLOW + ENDLESS + LARGE)
    schemathesis(mesh, tmp_path, "--phases", "coverage,fuzzing", "--max-examples", "15", *left_out)


def test_so_is_every_answer_to_large_requests(mesh: Any, tmp_path: Path) -> None:
    schemathesis(mesh, tmp_path, "--phases", "fuzzing", "--max-examples", "40", *operations("include", LARGE))


def test_so_is_every_answer_of_the_model(mesh: Any, tmp_path: Path) -> None:
    schemathesis(mesh, tmp_path, "--phases", "fuzzing", "--max-examples", "4", *operations("include", SLOW))
