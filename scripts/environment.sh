# Sourced by the run_*.sh scripts: a Python environment with this project and the extras named in $1.
# Uses the active environment, or makes .venv; installs again only when the requirements have changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: Python 3.11 or newer is needed; python3 is $(python3 --version 2>&1)" >&2
    exit 1
  fi
  [ -x .venv/bin/python ] || python3 -m venv .venv
  # shellcheck disable=SC1091
  source .venv/bin/activate
fi

stamp="${VIRTUAL_ENV:-$CONDA_PREFIX}/.glue_sparse-$1"
wanted="$PWD $(cat requirements.txt pyproject.toml)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "installing glue_sparse[$1] into ${VIRTUAL_ENV:-$CONDA_PREFIX} ..."
  python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e ".[$1]"
  echo "$wanted" >"$stamp"
fi
