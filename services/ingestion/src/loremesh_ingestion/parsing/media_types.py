"""The formats that can be read, and the names and suffixes they go by."""

from dataclasses import dataclass
from pathlib import PurePath

PLAIN = "text/plain"
MARKDOWN = "text/markdown"
HTML = "text/html"
CSV = "text/csv"
TSV = "text/tab-separated-values"
JSON = "application/json"
JSON_LINES = "application/x-ndjson"
EMAIL = "message/rfc822"
PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

# The part every document of the kind has.
OFFICE_PARTS = {"word/document.xml": DOCX, "ppt/presentation.xml": PPTX, "xl/workbook.xml": XLSX}


@dataclass(frozen=True, slots=True)
class Format:
    """What a document is: its media type, and the programming language of source code."""

    media_type: str
    language: str | None = None


LANGUAGES = {
    "c": "text/x-c",
    "cpp": "text/x-c++",
    "go": "text/x-go",
    "java": "text/x-java",
    "javascript": "text/javascript",
    "python": "text/x-python",
    "rust": "text/x-rust",
    "tsx": "text/tsx",
    "typescript": "text/typescript",
}
_CODE = {language: Format(media_type, language) for language, media_type in LANGUAGES.items()}

_SUFFIXES = {
    **dict.fromkeys((".txt", ".text", ".log"), Format(PLAIN)),
    **dict.fromkeys((".md", ".markdown", ".mdx"), Format(MARKDOWN)),
    **dict.fromkeys((".html", ".htm", ".xhtml"), Format(HTML)),
    **dict.fromkeys((".c", ".h"), _CODE["c"]),
    **dict.fromkeys((".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"), _CODE["cpp"]),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), _CODE["javascript"]),
    **dict.fromkeys((".ts", ".mts", ".cts"), _CODE["typescript"]),
    **dict.fromkeys((".py", ".pyi"), _CODE["python"]),
    **dict.fromkeys((".jsonl", ".ndjson"), Format(JSON_LINES)),
    ".csv": Format(CSV),
    ".tsv": Format(TSV),
    ".json": Format(JSON),
    ".eml": Format(EMAIL),
    ".go": _CODE["go"],
    ".java": _CODE["java"],
    ".rs": _CODE["rust"],
    ".tsx": _CODE["tsx"],
}
_DECLARED = {
    **{hint.media_type: hint for hint in _SUFFIXES.values()},
    "text/x-markdown": Format(MARKDOWN),
    "application/xhtml+xml": Format(HTML),
    "application/csv": Format(CSV),
    "application/jsonl": Format(JSON_LINES),
    "application/javascript": _CODE["javascript"],
    "application/typescript": _CODE["typescript"],
    "text/x-script.python": _CODE["python"],
}


def hint(filename: str, declared_media_type: str) -> Format | None:
    """Return what name and declaration claim, the name first, since tools declare most text as plain."""
    declared = declared_media_type.partition(";")[0].strip().lower()
    return _SUFFIXES.get(PurePath(filename).suffix.lower()) or _DECLARED.get(declared)
