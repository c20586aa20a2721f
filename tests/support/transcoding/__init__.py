"""Protos of the tests' own, compiled when they are needed."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import google.api
import google.api.annotations_pb2
import google.api.httpbody_pb2
import grpc_tools
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_tools import protoc

import recoup.mesh.v1.access_pb2  # noqa: F401 - what the protos import stands in the pool in its own words.

HERE = Path(__file__).parent


@cache
def compiled(name: str) -> bytes:
    """A proto of this folder and all that it imports, as a serialized FileDescriptorSet."""
    protos = HERE.parents[2] / "protos"
    includes = (
        HERE,
        protos,
        Path(grpc_tools.__file__).parent / "_proto",
        Path(next(iter(google.api.__path__))).parents[1],
    )
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set.binpb"
        arguments = [*(f"-I{each}" for each in includes), "--include_imports", f"--descriptor_set_out={made}", name]
        if protoc.main(["protoc", *arguments]):
            raise AssertionError(f"{name} can't be compiled")
        return made.read_bytes()


@cache
def descriptors(name: str) -> FileDescriptor:
    """The same file in the default pool."""
    pool = descriptor_pool.Default()
    found = descriptor_pb2.FileDescriptorSet.FromString(compiled(name))
    for each in found.file:  # What it needs stands before it.
        try:
            pool.FindFileByName(each.name)
        except KeyError:
            pool.Add(each)
    return pool.FindFileByName(name)
