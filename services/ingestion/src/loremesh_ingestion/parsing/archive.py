"""Looking into a ZIP file before any library unpacks it."""

import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from xml.parsers import expat

from loremesh_ingestion.errors import DocumentCorrupt, ParseLimit, PasswordProtected

_ENTRIES = 10_000
_UNPACKED = 1 << 29  # bytes in all
_RATIO = 200  # of unpacked to packed; XML of real documents reaches 30, and zeros 1000
_SMALL = 1 << 20  # bytes; an entry below this may have any ratio, a long run of one character in it is honest
_READ = 1 << 16
_ARCHIVES = (".zip", ".docx", ".pptx", ".xlsx", ".jar", ".gz", ".7z", ".rar")
_NESTED = 100  # embedded workbooks in a presentation are common, a hundred archives in one are not
_ENCRYPTED = 0x1


def names(path: Path) -> list[str]:
    """Return the entries' names once the archive is known to be harmless; raises ParseLimit or DocumentCorrupt.

    What the directory states is checked first, then what really comes out: a forged directory may lie.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_directory(entries)
            for entry in entries:
                if entry.filename.endswith((".xml", ".rels")):
                    _check_xml(archive, entry)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, ValueError) as error:
        message = "The file is a damaged or incomplete ZIP archive."
        raise DocumentCorrupt(message) from error
    return [entry.filename for entry in entries]


def _check_directory(entries: list[zipfile.ZipInfo]) -> None:
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise PasswordProtected
    if len(entries) > _ENTRIES:
        _refuse("entries")
    if sum(entry.filename.lower().endswith(_ARCHIVES) for entry in entries) > _NESTED:
        _refuse("depth")
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    bombs = (e for e in entries if e.file_size > _SMALL and e.file_size > _RATIO * max(1, e.compress_size))
    if unpacked > _UNPACKED or (unpacked > _SMALL and unpacked > _RATIO * max(1, packed)) or any(bombs):
        _refuse("ratio")


def _check_xml(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Read an entry through; Office documents may hold no DTD, and so no entities that blow up."""
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    with archive.open(entry) as file, suppress(expat.ExpatError):  # whether it is well formed is for its reader to say
        while data := file.read(_READ):
            parser.Parse(data, False)  # noqa: FBT003 - expat takes no keywords


def _refuse_doctype(*_: object) -> None:
    message = "The document defines XML entities, which Office documents may not."
    raise DocumentCorrupt(message)


def _refuse(limit: str) -> None:
    raise ParseLimit(limit)
