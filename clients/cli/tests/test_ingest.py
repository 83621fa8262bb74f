"""Files on their way into a mesh which loses answers, cuts streams and refuses."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh_cli import client
from loremesh_cli.ingest import FileProgress, Ingest

pytestmark = pytest.mark.unit


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "note.md"
    path.write_text("# A note")
    return path


async def ingested(mesh: Any, *paths: Path, stages: list[str] | None = None) -> list[FileProgress]:
    def seen(progress: FileProgress) -> None:
        if stages is not None:
            stages.append(progress.outcome or progress.stage)

    async with client.connect(mesh.url) as connected:
        return await Ingest(connected, vector_store_id="", seen=seen).files(paths)


async def test_a_file_is_uploaded_once_and_followed_until_it_is_ready(mesh: Any, file: Path) -> None:
    stages: list[str] = []
    (done,) = await ingested(mesh, file, stages=stages)
    assert (done.outcome, done.document_id, done.chunks) == ("ready", "d0", 4)
    assert stages == ["uploading", "parsing", "indexing", "ready"]
    assert mesh.documents.kept["d0"].filename == "note.md"


async def test_a_file_the_mesh_has_is_not_uploaded_again(mesh: Any, file: Path, tmp_path: Path) -> None:
    await ingested(mesh, file)
    copy = shutil.copy(file, tmp_path / "copy.md")
    (done,) = await ingested(mesh, copy)
    assert (done.outcome, done.document_id) == ("known", "d0")
    assert mesh.documents.uploads == 1


async def test_a_file_that_changed_replaces_its_document_s_content(mesh: Any, tmp_path: Path) -> None:
    changing, staying = tmp_path / "changing.md", tmp_path / "staying.md"
    for path in (changing, staying):
        write(path, path.name)
    first, second = await ingested(mesh, changing, staying)
    before = mesh.documents.kept[first.document_id].sha256
    write(changing, "another text")
    changed, known = await ingested(mesh, changing, staying)
    assert (changed.outcome, changed.document_id) == ("ready", first.document_id)
    assert (known.outcome, known.document_id) == ("known", second.document_id)
    assert mesh.documents.kept[first.document_id].sha256 != before
    assert len(mesh.documents.kept) == 2


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_an_upload_whose_answer_was_lost_is_not_sent_twice(mesh: Any, file: Path) -> None:
    mesh.documents.lose_answers = 1
    (done,) = await ingested(mesh, file)
    assert done.outcome == "ready"
    assert list(mesh.documents.kept) == ["d0"]


async def test_a_watch_that_was_cut_goes_on_where_it_ended(mesh: Any, file: Path) -> None:
    mesh.documents.cut_after = 2
    (done,) = await ingested(mesh, file)
    assert done.outcome == "ready"
    assert mesh.documents.watches == [0, 2]


async def test_a_document_that_failed_has_its_reason_and_is_indexed_anew_the_next_time(mesh: Any, file: Path) -> None:
    mesh.documents.fail_with = "PARSE_LIMIT"
    (done,) = await ingested(mesh, file)
    assert (done.outcome, done.reason) == ("failed", "PARSE_LIMIT")
    mesh.documents.fail_with = ""
    (done,) = await ingested(mesh, file)
    assert (done.outcome, mesh.documents.uploads) == ("ready", 1)
    assert mesh.documents.kept["d0"].state == pb.DOCUMENT_STATE_READY


async def test_a_refused_file_does_not_keep_the_others_out(mesh: Any, file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.md"
    empty.touch()
    refused, taken = await ingested(mesh, empty, file)
    assert (refused.outcome, refused.reason) == ("failed", "DOCUMENT_EMPTY")
    assert taken.outcome == "ready"


async def test_a_file_that_cannot_be_read_does_not_keep_the_others_out(mesh: Any, file: Path, tmp_path: Path) -> None:
    lost, taken = await ingested(mesh, tmp_path / "lost.md", file)
    assert (lost.outcome, lost.reason) == ("failed", "NOT_READABLE")
    assert taken.outcome == "ready"


async def test_files_whose_names_are_no_utf_8_are_taken_each_for_itself(mesh: Any, tmp_path: Path) -> None:
    names = [b"caf\xe9.md", b"caf\xe8.md"]
    paths = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) for name in names]
    for number, path in enumerate(paths):
        path.write_text(f"# Note {number}")
    done = await ingested(mesh, *paths)
    assert [each.outcome for each in done] == ["ready", "ready"]
    kept = {each.filename for each in mesh.documents.kept.values()}
    assert kept == {r"caf\xe9.md", r"caf\xe8.md"}
    assert [Path(each.outcome_fields()["path"]).name for each in done] == [r"caf\xe9.md", r"caf\xe8.md"]


async def test_many_files_come_back_in_their_order(mesh: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.txt" for number in range(60)]
    for path in paths:
        path.write_text(path.name)
    assert [done.path for done in await ingested(mesh, *paths)] == paths
    assert mesh.documents.uploads == 60
