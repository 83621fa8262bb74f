"""Progress bars for files on their way in: one for all, and one for each of the few shown of those in hand."""

from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loremesh_cli.files import legible
from loremesh_cli.ingest import FileProgress

SHOWN = 6
NAME_CHARS = 40


class FilesProgress:
    """Shows what `Ingest` reports."""

    def __init__(self, *, total: int, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._all = self._progress.add_task("files", total=total)
        self._rows: dict[Path, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def seen(self, file: FileProgress) -> None:
        """Take note of where a file is."""
        if file.outcome:
            self._progress.advance(self._all)
            if row := self._rows.pop(file.path, None):
                self._progress.remove_task(row)
        elif file.path in self._rows or len(self._rows) < SHOWN:
            name = legible(file.path.name)
            name = name if len(name) <= NAME_CHARS else f"...{name[3 - NAME_CHARS :]}"
            row = self._rows.setdefault(file.path, self._rows.get(file.path) or self._progress.add_task(name))
            self._progress.update(
                row, description=f"{name}: {file.stage}", completed=file.done, total=file.total or None
            )
