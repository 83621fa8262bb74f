"""REST paths: one operation for each HTTP rule of each rpc."""

import re
from collections.abc import Iterator

from google.api import annotations_pb2, http_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, MethodDescriptorProto

from loremesh_edge.openapi.index import Index, Message, Service
from loremesh_edge.openapi.rules import Schema
from loremesh_edge.openapi.schemas import Schemas

_F = FieldDescriptorProto
_BODY = ".google.api.HttpBody"
_VARIABLE = re.compile(r"\{([^}]+)\}")
# Ids are made by the server (UUIDs) or are slugs.
_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"}
_REFUSED: Schema = {"$ref": "#/components/responses/Error"}


class Paths:
    """Turns services into the document's `paths`."""

    def __init__(self, index: Index, schemas: Schemas) -> None:
        """Schemas which operations refer to gather in `schemas`."""
        self._index = index
        self._schemas = schemas

    def of(self, service: Service) -> Iterator[tuple[str, str, Schema]]:
        """Path, HTTP method in lower case and operation, for each rule."""
        for method, comment in service.methods:
            if not method.options.HasExtension(annotations_pb2.http):
                continue
            rule = method.options.Extensions[annotations_pb2.http]
            for number, each in enumerate((rule, *rule.additional_bindings)):
                verb = str(each.WhichOneof("pattern"))
                operation = self._operation(service, method, each, comment)
                operation["operationId"] = f"{service.proto.name}_{method.name}{f'_{number}' if number else ''}"
                yield _VARIABLE.sub(lambda m: f"{{{_parameter(m[1])}}}", getattr(each, verb)), verb, operation

    def _operation(
        self, service: Service, method: MethodDescriptorProto, rule: http_pb2.HttpRule, comment: str
    ) -> Schema:
        request = self._index.messages[method.input_type]
        template = getattr(rule, str(rule.WhichOneof("pattern")))
        bound = _VARIABLE.findall(template)
        parameters = [{"name": _parameter(each), "in": "path", "required": True, "schema": _ID} for each in bound]
        if rule.body != "*":
            parameters += self._query(request, taken={*bound, rule.body})
        operation: Schema = {
            "tags": [service.proto.name],
            "summary": comment.partition(". ")[0].removesuffix("."),
            "description": comment,
            "parameters": parameters,
            "responses": {"200": self._response(method), "default": _REFUSED},
        }
        if rule.body:
            operation["requestBody"] = self._body(service, method, rule.body, bound)
        return operation

    def _query(self, message: Message, *, taken: set[str], prefix: str = "") -> Iterator[Schema]:
        for field, comment in message.fields():
            name = prefix + field.name
            if name in taken or (not prefix and field.name in {each.split(".")[0] for each in taken}):
                continue
            if field.type == _F.TYPE_MESSAGE and field.type_name != ".google.protobuf.FieldMask":
                inner = self._index.messages[field.type_name]
                if field.label != _F.LABEL_REPEATED and inner.name.startswith("loremesh") and not self._recurs(inner):
                    yield from self._query(inner, taken=taken, prefix=f"{name}.")
                continue
            schema = self._schemas.field(field, comment)
            yield {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}

    def _recurs(self, message: Message) -> bool:
        """Whether it may contain itself: such a message has no form as parameters."""
        seen: set[str] = set()
        waiting = [f".{message.name}"]
        while waiting:
            for field in self._index.messages[waiting.pop()].proto.field:
                if field.type_name == f".{message.name}":
                    return True
                if field.type == _F.TYPE_MESSAGE and field.type_name not in seen:
                    seen.add(field.type_name)
                    waiting.append(field.type_name)
        return False

    def _body(self, service: Service, method: MethodDescriptorProto, body: str, bound: list[str]) -> Schema:
        request = self._index.messages[method.input_type]
        if body == "*":
            return self._message(request, without=bound)
        field = next(each for each in request.proto.field if each.name == body)
        if field.type_name == _BODY:
            return self._file(self._index.messages[f".{service.package}.{method.name}Body"])
        return self._message(
            self._index.messages[field.type_name], without=[each.removeprefix(f"{body}.") for each in bound]
        )

    def _message(self, message: Message, *, without: list[str]) -> Schema:
        whole = self._schemas.message(f".{message.name}")
        schema = self._schemas.properties(message, without=without) if without else whole
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def _file(self, body: Message) -> Schema:
        """An upload takes its `<Rpc>Body` as JSON, a form with the same fields, or the bytes themselves."""
        binary: Schema = {"type": "string", "format": "binary"}
        form = self._schemas.properties(body, without=["content"])
        form["properties"] = {"file": {**binary, "description": "The bytes."}} | form["properties"]
        form["required"] = ["file"]
        content = {
            "application/json": {"schema": self._schemas.message(f".{body.name}")},
            "multipart/form-data": {"schema": form},
            "application/octet-stream": {"schema": binary},
        }
        return {"required": True, "content": content}

    def _response(self, method: MethodDescriptorProto) -> Schema:
        description = "As the description says."
        if method.output_type == _BODY:
            return {"description": description, "content": {"*/*": {"schema": {}}}}
        schema = self._schemas.message(method.output_type)
        if not method.server_streaming:
            return {"description": description, "content": {"application/json": {"schema": schema}}}
        event: Schema = {
            "type": "object",
            "description": f"One of the server-sent events: its `data` is a {method.output_type[1:]} as JSON.",
            "properties": {"data": {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}},
            "required": ["data"],
        }
        return {"description": description, "content": {"text/event-stream": {"schema": event}}}


def _parameter(variable: str) -> str:
    return variable.replace(".", "_")
