"""A descriptor set by name, with the comments of its sources."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

_MESSAGE, _NESTED, _FIELD = 4, 3, 2
_ENUM, _VALUE = 5, 2
_SERVICE, _METHOD = 6, 2
_NESTED_ENUM = 4


@dataclass(frozen=True, slots=True)
class Message:
    """A message; `comments` has one entry per field."""

    name: str
    proto: DescriptorProto
    comment: str
    comments: Sequence[str]

    def fields(self) -> Iterator[tuple[FieldDescriptorProto, str]]:
        """Each field with its comment."""
        return zip(self.proto.field, self.comments, strict=True)


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum; `comments` has one entry per value."""

    proto: EnumDescriptorProto
    comment: str
    comments: Sequence[str]


@dataclass(frozen=True, slots=True)
class Service:
    """A service; `methods` are its rpcs with their comments."""

    name: str
    package: str
    proto: ServiceDescriptorProto
    comment: str
    methods: Sequence[tuple[MethodDescriptorProto, str]]


class Index:
    """Messages, enums and services of a descriptor set by full name, messages and enums with a leading dot."""

    def __init__(self, files: FileDescriptorSet) -> None:
        """`files` must hold source info, as `buf build` writes it."""
        self.messages: dict[str, Message] = {}
        self.enums: dict[str, Enum] = {}
        self.services: list[Service] = []
        for file in files.file:
            comments = {tuple(each.path): _text(each.leading_comments) for each in file.source_code_info.location}
            for i, message in enumerate(file.message_type):
                self._add(message, f".{file.package}", (_MESSAGE, i), comments)
            for i, enum in enumerate(file.enum_type):
                self._add_enum(enum, f".{file.package}", (_ENUM, i), comments)
            for i, service in enumerate(file.service):
                path = (_SERVICE, i)
                methods = [(method, comments.get((*path, _METHOD, j), "")) for j, method in enumerate(service.method)]
                comment = comments.get(path, "")
                self.services.append(Service(f"{file.package}.{service.name}", file.package, service, comment, methods))

    def _add(
        self, proto: DescriptorProto, scope: str, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
    ) -> None:
        name = f"{scope}.{proto.name}"
        fields = [comments.get((*path, _FIELD, i), "") for i in range(len(proto.field))]
        self.messages[name] = Message(name[1:], proto, comments.get(path, ""), fields)
        for i, nested in enumerate(proto.nested_type):
            self._add(nested, name, (*path, _NESTED, i), comments)
        for i, enum in enumerate(proto.enum_type):
            self._add_enum(enum, name, (*path, _NESTED_ENUM, i), comments)

    def _add_enum(
        self, proto: EnumDescriptorProto, scope: str, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
    ) -> None:
        values = [comments.get((*path, _VALUE, i), "") for i in range(len(proto.value))]
        self.enums[f"{scope}.{proto.name}"] = Enum(proto, comments.get(path, ""), values)


def _text(comment: str) -> str:
    """Paragraphs without the line breaks of the source."""
    paragraphs = "\n".join(line.strip() for line in comment.strip().splitlines()).split("\n\n")
    return "\n\n".join(" ".join(paragraph.splitlines()) for paragraph in paragraphs)
