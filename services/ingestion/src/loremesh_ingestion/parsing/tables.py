"""Tables as Markdown, whatever format they come from."""

from collections.abc import Iterable, Sequence


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """Return `rows` as a Markdown table, the first row being its header; rows may differ in length."""
    cells = [[_cell(value) for value in row] for row in rows]
    cells = [row for row in cells if any(row)]
    width = max((len(row) for row in cells), default=0)
    if not width:
        return ""
    lines = [_line([*row, *[""] * (width - len(row))]) for row in cells]
    lines.insert(1, _line(["---"] * width))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")
