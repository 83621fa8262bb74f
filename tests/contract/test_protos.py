import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

pytestmark = pytest.mark.contract


def output(*command: str | Path, folder: Path) -> str:
    """What a command has to say."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


def test_buf_finds_nothing_to_lint(generated: Path, tools: Path) -> None:
    assert output(tools / "buf", "lint", folder=generated) == ""


def test_every_proto_is_formatted(repository: Path, generated: Path) -> None:
    for formatted in (generated / "proto" / "loremesh").rglob("*.proto"):
        as_written = repository / formatted.relative_to(generated)
        assert as_written.read_text() == formatted.read_text(), "run scripts/gen and commit what it changes"


def test_no_contract_breaks_one_on_the_main_branch(
    repository: Path, generated: Path, tools: Path, tmp_path: Path
) -> None:
    branch = main_branch(repository)
    if branch is None:
        pytest.skip("there is no main branch to compare with: this is no clone of the repository")
    archive = tmp_path / "main.tar"
    subprocess.run(["git", "archive", "-o", archive, branch, "proto", "buf.yaml"], cwd=repository, check=True)
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
    shutil.copytree(generated / "build", tmp_path / "build")
    assert output(tools / "buf", "breaking", "--against", tmp_path, folder=generated) == ""


def main_branch(repository: Path) -> str | None:
    for branch in ("origin/main", "main"):
        verify = ["git", "rev-parse", "--verify", "--quiet", f"{branch}:proto"]
        if subprocess.run(verify, cwd=repository, capture_output=True, check=False).returncode == 0:
            return branch
    return None


def rpcs_with_comments(descriptors: FileDescriptorSet) -> Iterator[tuple[str, bool, str]]:
    """Each rpc, whether it has an HTTP rule, and its comment."""
    for file in descriptors.file:
        comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
        for i, service in enumerate(file.service):
            for j, method in enumerate(service.method):
                has_rule = method.options.HasExtension(annotations_pb2.http)
                yield f"{file.package}.{service.name}/{method.name}", has_rule, comments.get((6, i, 2, j), "")


def test_every_rpc_has_an_http_rule_or_says_why_not(descriptors: FileDescriptorSet) -> None:
    rpcs = list(rpcs_with_comments(descriptors))
    assert len(rpcs) > 20
    assert [name for name, has_rule, comment in rpcs if has_rule == ("No HTTP rule: " in comment)] == []
