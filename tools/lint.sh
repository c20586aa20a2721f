#!/usr/bin/env bash
# Every check that needs no running server. Runs them all, then fails if any failed.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
export PATH="$PWD/$bin:$PATH"
failed=0
check() {
  local name=$1
  shift
  if output=$("$@" 2>&1); then
    printf 'ok    %s\n' "$name"
  else
    printf 'FAIL  %s\n%s\n' "$name" "$output" | tail -n 80
    failed=1
  fi
}
check "ruff check" ruff check --quiet .
check "ruff format" ruff format --quiet --check .
check "mypy strict" mypy services clients/recoup_client verifier/recoup_verify local/recoup_local tools bench tests/support
check "import layers" lint-imports
check "buf lint" buf lint
check "buf format" buf format protos --diff --exit-code
check "buf breaking" buf breaking protos --against protos/released.binpb
check "stubs are fresh" python tools/gen_protos.py --check
check "locks are fresh" python tools/lock.py --check
check "docs are fresh" python tools/check_docs.py
check "repository shape" pytest -q -p no:cacheprovider tests/unit/test_repo_shape.py
exit $failed
