"""`python -m tools.openapi [--check]`: writes services/gateway/openapi.json, or says that it is stale."""

from __future__ import annotations

import json
import sys

from tools.openapi.comments import ROOT, comments
from tools.openapi.document import document

FILE = ROOT / "services" / "gateway" / "openapi.json"


def main() -> int:
    """Write the file, or compare it."""
    text = json.dumps(document(comments()), indent=1, ensure_ascii=False) + "\n"
    if "--check" in sys.argv[1:]:
        return int(not FILE.exists() or FILE.read_text("utf-8") != text)
    FILE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
