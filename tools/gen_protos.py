"""Generates the stubs from the protos, and the local module of third-party protos; `--check` only compares.

Everything comes from hash-locked packages and works without a network once those are installed.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from google.api import annotations_pb2

ROOT = Path(__file__).resolve().parents[1]
PROTOS = ROOT / "protos"
GENERATED = PROTOS / "gen"
THIRD_PARTY = ROOT / ".buf" / "third_party"
VALIDATE = "buf/validate/validate.proto"
# A package's services are served by the process of its name, except for those with a process of their own.
APART = {"SignerService": "audit-signer"}
SERVICES = '''"""Generated from the protos: the services of each process."""

from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor

{imports}

SERVICES: dict[str, tuple[ServiceDescriptor, ...]] = {{
{entries}
}}
'''


def third_party() -> None:
    """Lay out google/{api,rpc,type,longrunning} and buf/validate as a local module."""
    google = Path(annotations_pb2.__file__).parents[1]
    for package in ("api", "rpc", "type", "longrunning"):
        target = THIRD_PARTY / "google" / package
        target.mkdir(parents=True, exist_ok=True)
        for proto in sorted((google / package).glob("*.proto")):
            _lay(proto, target / proto.name)
    if not (THIRD_PARTY / VALIDATE).exists():
        _fetch_validate()


def _lay(proto: Path, target: Path) -> None:
    """Copy what isn't there yet, at once: other tools read these files while a check runs beside them."""
    if not target.exists() or not filecmp.cmp(proto, target, shallow=False):
        half = target.with_suffix(".half")
        shutil.copyfile(proto, half)
        half.replace(target)


def _fetch_validate() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=protovalidate"]
            + ["--no-build-isolation", "--require-hashes", "--disable-pip-version-check", "--dest", folder]
            + ["-r", str(ROOT / "requirements-protos.txt")],
            check=True,
        )
        (archive,) = Path(folder).glob("protovalidate-*.tar.gz")
        with tarfile.open(archive) as source:
            (member,) = (name for name in source.getnames() if name.endswith(f"/upstream/proto/{VALIDATE}"))
            content = source.extractfile(member)
            assert content is not None
            target = THIRD_PARTY / VALIDATE
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


def generate(output: Path) -> None:
    """Write all stubs into `output`."""
    ours = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "recoup").rglob("*.proto"))
    outputs = ["python_out", "grpc_python_out"]
    typed = ["mypy_out", "mypy_grpc_out"]
    environment_bin = Path(sys.executable).parent
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{THIRD_PARTY}"]
        + [f"--plugin={plugin}={environment_bin / plugin}" for plugin in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
        + [f"--{name}={output}" for name in outputs]
        + [f"--{name}=quiet:{output}" for name in typed]
        + [*ours, VALIDATE],
        check=True,
    )
    # Regular packages rather than namespaces, so that type checkers find every stub.
    for package in ("recoup", "buf"):
        (output / package / "py.typed").touch()
        for folder in (output / package, *(path for path in (output / package).rglob("*") if path.is_dir())):
            (folder / "__init__.py").write_text('"""Generated from the protos."""\n')
    (output / "recoup" / "services.py").write_text(_services())


def _services() -> str:
    """The module that names the services of each process. The mesh's own are served by each process that has jobs."""
    imports, served = set(), dict[str, list[str]]()
    for proto in sorted((PROTOS / "recoup").glob("*/v1/*_service.proto")):
        package, module = proto.parts[-3], f"{proto.stem}_pb2"
        for name in re.findall(r"^service (\w+) \{", proto.read_text("utf-8"), re.MULTILINE):
            if package != "mesh":
                imports.add(f"from recoup.{package}.v1 import {module}")
                served.setdefault(APART.get(name, package), []).append(
                    f'        {module}.DESCRIPTOR.services_by_name["{name}"],\n'
                )
    entries = "\n".join(f'    "{process}": (\n{"".join(each)}    ),' for process, each in sorted(served.items()))
    return SERVICES.format(imports="\n".join(sorted(imports)), entries=entries)


def main() -> int:
    """Generate, or compare with --check."""
    third_party()
    if "--third-party" in sys.argv[1:]:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        if "--check" in sys.argv[1:]:
            return _compare(fresh)
        shutil.rmtree(GENERATED, ignore_errors=True)
        shutil.copytree(fresh, GENERATED)
    return 0


def _compare(fresh: Path) -> int:
    names = {str(path.relative_to(fresh)) for path in fresh.rglob("*") if path.is_file()}
    there = (path.relative_to(GENERATED) for path in GENERATED.rglob("*") if path.is_file() and path.suffix != ".pyc")
    # What building the wheel leaves beside the stubs is ignored by git, too.
    here = {str(path) for path in there if not path.parts[0].endswith(".egg-info")}
    stale = sorted(names ^ here) + [
        name for name in sorted(names & here) if not filecmp.cmp(fresh / name, GENERATED / name, shallow=False)
    ]
    for name in stale:
        print(f"protos/gen/{name} is stale: run `make protos` and commit it", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
