#!/usr/bin/env bash
# The fast part of the test suite with every requirement at its lower bound in pyproject.toml. For example
#   bash scripts/check_lower_bounds.sh                           # in an environment of its own, in a temporary folder
#   TORCH=2.13.0 VENV=~/lowest bash scripts/check_lower_bounds.sh  # with this torch, and an environment that stays
# Further arguments are those of pytest. What only looks at code, ruff, pyright and mkdocs, is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

fast=(tests/writing tests/core tests/arguments tests/records tests/reports tests/diffs tests/cli)
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
venv="${VENV:-$scratch/venv}"

python3 - "${TORCH:-}" >"$scratch/lowest.txt" <<'PYTHON'
import re
import sys
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
texts = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
for name, bound in re.findall(r"^([\w.-]+)[^\n]*?[>=]=([\w.]+)", "\n".join(texts), flags=re.MULTILINE):
    print(f"{name}=={sys.argv[1] or bound}" if name == "torch" else f"{name}=={bound}")
PYTHON

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
unset PYTHONPATH
"$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off --constraint "$scratch/lowest.txt" \
  -e ".[offline,plots,report,vision,slurm,benchmark,eval]" pytest pytest-xdist >"$scratch/pip.log" 2>&1 ||
  { tail -n 20 "$scratch/pip.log" >&2 && exit 1; }
echo "at the lower bounds, on $("$venv/bin/python" --version):"
"$venv/bin/python" -m pip list --disable-pip-version-check --format freeze | grep -iFf <(sed "s/==.*/==/" "$scratch/lowest.txt")
"$venv/bin/python" -m pytest -p no:cacheprovider "${fast[@]}" "$@"
