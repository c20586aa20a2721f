"""The TypeScript client's own tests, by Node's runner: what is sent and repeated, streams, paging, credentials."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tests.support.typescript import CLIENT, compile_client, node, npm, tsc

PROGRAM = """
import { bearerToken, RecoupClient } from "@recoup/client";

const client = new RecoupClient({ baseUrl: "https://recoup.example.com", credential: bearerToken("token") });
const { findings } = await client.get("/v1/organizations/{organization_id}/findings");
export const shown: string[] = findings.map((finding) => finding.findingId);
"""


def test_its_own_tests_pass() -> None:
    said = node("--test", "--test-timeout=30000", "--test-reporter=tap", "tests/*.test.ts")
    counted = {
        name: int(count) for name, count in re.findall(r"^# (pass|fail|cancelled|skipped|todo) (\d+)$", said, re.M)
    }
    assert counted.pop("pass") >= 25, said
    assert not any(counted.values()), said


def test_a_program_of_somebody_elses_is_checked_against_the_compiled_package(tmp_path: Path) -> None:
    """As the README says: packed, installed from the file, and checked by their own settings, strict."""
    package = tmp_path / "package"
    compile_client(package)
    shutil.copy(CLIENT / "package.json", package)
    npm("pack", "--pack-destination", tmp_path, folder=package)
    shutil.rmtree(package)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    npm("install", "./recoup-client-0.1.0.tgz", folder=tmp_path)
    settings = {"target": "es2022", "lib": ["es2023", "dom"], "module": "nodenext", "types": []}
    (tmp_path / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": {"strict": True, "noEmit": True, "skipLibCheck": True, **settings}})
    )
    (tmp_path / "good.ts").write_text(PROGRAM)
    (tmp_path / "wrong.ts").write_text(PROGRAM.replace("finding.findingId", "finding.unitsDone"))
    checked = tsc("--project", tmp_path)
    assert re.findall(r"(\w+)\.ts.* error (\w+)", checked.stdout) == [("wrong", "TS2339")], checked.stdout
