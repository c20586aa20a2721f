"""The comments of the protos, which are their documentation; descriptors at run time have none."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
_PROTOS, _THIRD_PARTY = ROOT / "protos", ROOT / ".buf" / "third_party"
# Numbers of fields in descriptor.proto, of which the paths of comments are made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _VALUES, _METHODS = 2, 3, 4, 2, 2


def comments() -> Mapping[str, str]:
    """What stands before each message, field, enum, value, service and RPC, by its full name; a value's is below its
    enum's.
    """
    found: dict[str, str] = {}
    for file in _described().file:
        if file.name.startswith("recoup/"):
            said = {tuple(place.path): _joined(place.leading_comments) for place in file.source_code_info.location}
            found |= {name: said[path] for name, path in _named(file) if said.get(path)}
    return found


def _described() -> descriptor_pb2.FileDescriptorSet:
    ours = sorted(str(path.relative_to(_PROTOS)) for path in (_PROTOS / "recoup").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set.binpb"
        arguments = [f"-I{_PROTOS}", f"-I{_THIRD_PARTY}", "--include_source_info", f"--descriptor_set_out={made}"]
        if protoc.main(["protoc", *arguments, f"-I{Path(protoc.__file__).parent / '_proto'}", *ours]):
            raise SystemExit("the protos can't be compiled")
        return descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes())


def _joined(comment: str) -> str:
    """The lines of a comment as text: paragraphs stay apart."""
    paragraphs = re.split(r"\n\s*\n", comment.strip())
    return "\n\n".join(" ".join(line.strip() for line in each.splitlines()) for each in paragraphs)


def _named(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    for place, message in enumerate(file.message_type):
        yield from _of_message(f"{file.package}.{message.name}", message, (_MESSAGES, place))
    for place, enum in enumerate(file.enum_type):
        yield from _of_enum(f"{file.package}.{enum.name}", enum, (_ENUMS, place))
    for place, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield name, (_SERVICES, place)
        for number, method in enumerate(service.method):
            yield f"{name}.{method.name}", (_SERVICES, place, _METHODS, number)


def _of_message(
    name: str, message: descriptor_pb2.DescriptorProto, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name, path
    for place, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _FIELDS, place)
    for place, nested in enumerate(message.nested_type):
        yield from _of_message(f"{name}.{nested.name}", nested, (*path, _NESTED, place))
    for place, enum in enumerate(message.enum_type):
        yield from _of_enum(f"{name}.{enum.name}", enum, (*path, _NESTED_ENUMS, place))


def _of_enum(
    name: str, enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name, path
    for place, value in enumerate(enum.value):
        yield f"{name}.{value.name}", (*path, _VALUES, place)
