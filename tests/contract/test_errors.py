"""The catalogue of reasons and the classes which raise them say the same."""

import importlib
import inspect
import re
from types import ModuleType

import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from loremesh_kit import errors as kit
from loremesh_kit.errors import Code, ServiceError

pytestmark = pytest.mark.contract

SERVICES = ("agent", "crew", "edge", "embedding", "ingestion", "retrieval")
PREFIX = "ERROR_REASON_"


def classes(module: ModuleType) -> list[type[ServiceError]]:
    """Those of the module, or of the package's modules."""
    members = (member for _, member in inspect.getmembers(module, inspect.isclass))
    own = (each for each in members if f"{each.__module__}.".startswith(f"{module.__name__}."))
    # Of what something is missing, only a service can say.
    return [each for each in own if issubclass(each, ServiceError) and each is not kit.Missing]


def errors_of(service: str) -> list[type[ServiceError]]:
    return classes(importlib.import_module(f"loremesh_{service}.errors"))


def reasons_of(errors: list[type[ServiceError]]) -> set[str]:
    return {each.reason for each in errors if each is not ServiceError}


def words_of(service: str) -> set[str]:
    """Reasons that stand in what is shown, and are no refusals."""
    members = inspect.getmembers(importlib.import_module(f"loremesh_{service}.errors"))
    return set().union(*(value for name, value in members if name.startswith("REASONS_OF_")))


def catalogue(descriptors: FileDescriptorSet, package: str) -> dict[str, str]:
    """The package's reasons and their comments."""
    for file in descriptors.file:
        if file.package == f"loremesh.{package}.v1":
            comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
            for i, enum in enumerate(file.enum_type):
                if enum.name == "ErrorReason":
                    values = enumerate(enum.value)
                    return {v.name.removeprefix(PREFIX): comments[5, i, 2, j] for j, v in values if v.number != 0}
    return {}


def rules(descriptors: FileDescriptorSet, package: str | None = None) -> set[str]:
    """Reasons which are ids of validation rules: these the kit's interceptor gives."""
    found: set[str] = set()

    def visit(message: DescriptorProto) -> None:
        options = [message.options.Extensions[validate_pb2.message]]
        options += [field.options.Extensions[validate_pb2.field] for field in message.field]
        found.update(rule.id for option in options for rule in option.cel if rule.id.isupper())
        for nested in message.nested_type:
            visit(nested)

    for file in descriptors.file:
        if package is None or file.package == f"loremesh.{package}.v1":
            for message in file.message_type:
                visit(message)
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_every_reason_in_the_catalogue_can_happen(descriptors: FileDescriptorSet, service: str) -> None:
    named = set(catalogue(descriptors, service))
    assert named
    assert named - reasons_of(errors_of(service)) - words_of(service) - rules(descriptors, service) == set()


@pytest.mark.parametrize("service", SERVICES)
def test_every_error_is_in_the_catalogue(descriptors: FileDescriptorSet, service: str) -> None:
    known = set(catalogue(descriptors, service)) | set(catalogue(descriptors, "common"))
    assert (reasons_of(errors_of(service)) | words_of(service)) - known == set()


def test_every_common_reason_can_happen_and_is_known(descriptors: FileDescriptorSet) -> None:
    named = set(catalogue(descriptors, "common"))
    services = set().union(*(reasons_of(errors_of(service)) for service in SERVICES))
    assert named - reasons_of(classes(kit)) - services - rules(descriptors) == set()
    assert reasons_of(classes(kit)) - named == set()


def test_every_rule_that_is_a_reason_is_known_where_it_stands(descriptors: FileDescriptorSet) -> None:
    for service in SERVICES:
        known = set(catalogue(descriptors, service)) | set(catalogue(descriptors, "common"))
        assert rules(descriptors, service) - known == set(), service


@pytest.mark.parametrize("service", [*SERVICES, "common"])
def test_an_error_has_a_code_which_its_comment_names(descriptors: FileDescriptorSet, service: str) -> None:
    comments = catalogue(descriptors, service)
    wrong = []
    for error in classes(kit) if service == "common" else errors_of(service):
        named = {
            word for word in re.findall(r"\b[A-Z_]+\b", comments.get(error.reason, "")) if word in Code.__members__
        }
        if named and error.code.name not in named:
            wrong.append((error.__name__, error.code.name, named))
    assert wrong == []
