"""A multipart form, taken apart as it comes in: the file's bytes pass through, the fields are kept."""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from loremesh_ingestion.errors import UploadMalformed

FILE = "file"
_FIELDS = frozenset({"document_id", "title", "vector_store_id", "attributes", "filename", "chunking_strategy"})
_FIELD_BYTES = 64 * 1024
_FINAL_BOUNDARY_MISSING = "The form ends before its final boundary."


class Form:
    """Feed it the body; it gives back what of it is the file's."""

    def __init__(self, content_type: str) -> None:
        """Raises UploadMalformed when `content_type` states no usable boundary."""
        _, options = parse_options_header(content_type)
        if not (boundary := options.get(b"boundary")):
            raise UploadMalformed("The content type states no boundary.", field=FILE)
        self.filename = ""
        self.content_type = ""
        self._fields: dict[str, bytearray] = {}
        self._headers: dict[bytes, bytes] = {}
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._part = ""
        self._has_file = False
        self._ended = False
        self._file_pieces: list[bytes] = []
        callbacks = {
            "on_part_begin": self._headers_reset,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._part_begin,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise UploadMalformed("The boundary is too long.", field=FILE) from error

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next piece of the body; the bytes of the file in it. Raises UploadMalformed."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise UploadMalformed("The form is not well-formed.", field=self._part or FILE) from error
        pieces, self._file_pieces = self._file_pieces, []
        return pieces

    def finish(self) -> dict[str, str]:
        """The fields, by name; raises UploadMalformed when the form is not whole, has no file or no proper text."""
        if not self._ended:
            raise UploadMalformed(_FINAL_BOUNDARY_MISSING, field=self._part or FILE)
        if not self._has_file:
            raise UploadMalformed("The form has no part named file.", field=FILE)
        return {name: _text(name, bytes(value)) for name, value in self._fields.items()}

    def _headers_reset(self) -> None:
        self._headers.clear()

    def _header_end(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _part_begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in {FILE, *_FIELDS}:
            raise UploadMalformed("The form has a part that is none of an upload's.", field=name[:64] or FILE)
        if name in self._fields or (name == FILE and self._has_file):
            raise UploadMalformed("The form has two parts of one name.", field=name)
        self._part = name
        if name == FILE:
            self._has_file = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
            self.content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        else:
            self._fields[name] = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == FILE:
            self._file_pieces.append(data[start:end])
            return
        field = self._fields[self._part]
        field += data[start:end]
        if len(field) > _FIELD_BYTES:
            raise UploadMalformed(f"The part has more than {_FIELD_BYTES // 1024} KiB.", field=self._part)

    def _end(self) -> None:
        self._ended = True


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UploadMalformed("The part is not UTF-8.", field=name) from error
