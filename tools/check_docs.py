"""Compares the generated pages with what the code says now; `--write` writes them instead."""

from __future__ import annotations

import subprocess
import sys

# Each module prints nothing and exits 1 with --check when its page is stale.
GENERATORS = (
    *("services._mesh.docs", "services.scanner.catalogue", "tools.kms_policies"),
    *("tools.openapi", "tools.typescript"),  # In this order: the second reads what the first makes.
)


def main() -> int:
    """Run every generator."""
    mode = [] if "--write" in sys.argv[1:] else ["--check"]
    failed = [name for name in GENERATORS if subprocess.run([sys.executable, "-m", name, *mode]).returncode]
    for name in failed:
        print(f"the page of {name} is stale: run `make docs` and commit it", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
