"""Generates what is made from proto/: Python, a descriptor set, OpenAPI; third-party protos come from their wheels."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import google.api  # type: ignore[import-untyped]
import google.rpc  # type: ignore[import-untyped]
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).parent.parent
PROTO = ROOT / "proto"
GEN = PROTO / "gen"
DEPS = ROOT / "build" / "proto-deps"
DESCRIPTOR = ROOT / "build" / "descriptor.binpb"
OPENAPI = ROOT / "services" / "edge" / "src" / "loremesh_edge" / "openapi.json"
GOOGLE = {
    google.api: ("annotations", "http", "httpbody", "client", "launch_stage", "field_behavior"),
    google.rpc: ("status", "error_details", "code"),
}
SCALARS = {
    FieldDescriptorProto.Type.Value(f"TYPE_{name.upper()}"): name
    for name in (
        *("double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32"),
        *("sfixed32", "sfixed64", "sint32", "sint64"),
    )
}
LABELS = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
    FieldDescriptorProto.LABEL_REQUIRED: "required ",
    FieldDescriptorProto.LABEL_REPEATED: "repeated ",
}


def field(descriptor: FieldDescriptorProto, *, label: bool = True) -> str:
    """One field as source text."""
    kind = SCALARS.get(descriptor.type) or descriptor.type_name
    prefix = LABELS[descriptor.label] if label else ""
    return f"{prefix}{kind} {descriptor.name} = {descriptor.number};"


def enum(descriptor: EnumDescriptorProto) -> str:
    """An enum as source text."""
    return f"enum {descriptor.name} {{ {' '.join(f'{v.name} = {v.number};' for v in descriptor.value)} }}"


def message(descriptor: DescriptorProto) -> str:
    """A message as source text, without options: the validator has them compiled in."""
    maps = {nested.name: nested for nested in descriptor.nested_type if nested.options.map_entry}
    parts = [message(nested) for nested in descriptor.nested_type if nested.name not in maps]
    parts += [enum(nested) for nested in descriptor.enum_type]
    for index, oneof in enumerate(descriptor.oneof_decl):
        members = [f for f in descriptor.field if f.HasField("oneof_index") and f.oneof_index == index]
        parts.append(f"oneof {oneof.name} {{ {' '.join(field(f, label=False) for f in members)} }}")
    parts += [field(f) for f in descriptor.field if not f.HasField("oneof_index")]
    parts += [f"extensions {r.start} to {'max' if r.end > 2**28 else r.end - 1};" for r in descriptor.extension_range]
    return f"message {descriptor.name} {{\n{chr(10).join(parts)}\n}}"


def proto2(file: FileDescriptorProto) -> str:
    """A proto2 file as source text; protovalidate's wheel has validate.proto as a descriptor only."""
    extended: dict[str, list[str]] = {}
    for extension in file.extension:
        extended.setdefault(extension.extendee, []).append(field(extension))
    lines = ['syntax = "proto2";', f"package {file.package};"]
    lines += [f'import "{name}";' for name in file.dependency]
    lines += [enum(e) for e in file.enum_type] + [message(m) for m in file.message_type]
    lines += [f"extend {name} {{ {' '.join(fields)} }}" for name, fields in extended.items()]
    return "\n".join(lines) + "\n"


def third_party() -> None:
    """Lays out the protos ours import, as buf.yaml's second module."""
    shutil.rmtree(DEPS, ignore_errors=True)
    for package, names in GOOGLE.items():
        folder = DEPS / package.__name__.replace(".", "/")
        folder.mkdir(parents=True)
        for name in names:
            shutil.copy(Path(package.__path__[0]) / f"{name}.proto", folder)
    target = DEPS / "buf" / "validate" / "validate.proto"
    target.parent.mkdir(parents=True)
    target.write_text(proto2(FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())))


def run(*command: str) -> None:
    """Runs a tool of this environment; its failure is ours."""
    tools = Path(sys.executable).parent
    path = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run([str(tools / command[0]), *command[1:]], check=True, cwd=ROOT, env={**os.environ, "PATH": path})


def python() -> None:
    """Generates messages, stubs and their types, and marks every folder as a package."""
    for name in ("loremesh", "buf"):
        shutil.rmtree(GEN / name, ignore_errors=True)
    GEN.mkdir(exist_ok=True)
    sources = sorted(str(p.relative_to(PROTO)) for p in PROTO.glob("loremesh/**/*.proto"))
    outputs = ("--python_out=", "--grpc_python_out=", "--mypy_out=", "--mypy_grpc_out=only_async:")
    run(
        *("python", "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{DEPS}"),
        *(f"{flag}{GEN}" for flag in outputs),
        *(*sources, "buf/validate/validate.proto"),
    )
    for stub in GEN.glob("**/*_pb2_grpc.py"):
        if "Servicer" not in stub.read_text():
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)
    for name in ("loremesh", "buf"):
        for folder in (GEN / name, *(p for p in (GEN / name).glob("**/") if p.name != "__pycache__")):
            (folder / "__init__.py").touch()
        (GEN / name / "py.typed").touch()


def main() -> None:
    """Generates everything."""
    third_party()
    run("buf", "format", "--write", "proto")
    python()
    run("buf", "build", "--as-file-descriptor-set", "-o", str(DESCRIPTOR.relative_to(ROOT)))
    run("python", "-m", "loremesh_edge.openapi", str(DESCRIPTOR), str(OPENAPI))


if __name__ == "__main__":
    main()
