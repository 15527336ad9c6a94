#!/usr/bin/env bash
# Builds the wheel and the sdist and tries them in a bare environment outside the checkout, one line per check:
#   bash scripts/check_package.sh [--keep]     # --keep leaves the folder with all of it, and says where it is
# TORCH=torch==2.13.0 installs that torch first; QUICKSTART="--flag value" are flags of the quickstart, which takes
# minutes. The first check that fails shows its output, and ends the script.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout="$PWD"
case "${1:-}" in
  "" | --keep) keep="${1:-}" ;;
  *) echo "usage: bash scripts/check_package.sh [--keep]" >&2 && exit 2 ;;
esac

scratch="$(mktemp -d)"
if [ -n "$keep" ]; then trap 'echo "kept: $scratch"' EXIT; else trap 'rm -rf "$scratch"' EXIT; fi
unset PYTHONPATH VIRTUAL_ENV
mkdir "$scratch/empty" "$scratch/sdist"

check() { # NAME COMMAND...: one line with the seconds, or the output and the end
  local name="$1" start="$SECONDS"
  shift
  if "$@" >"$scratch/log" 2>&1; then
    printf 'ok      %4d s  %s\n' "$((SECONDS - start))" "$name"
  else
    printf 'failed  %4d s  %s\n' "$((SECONDS - start))" "$name" >&2
    tail -n 60 "$scratch/log" >&2
    exit 1
  fi
}

build() { # in an environment with nothing but `build`; its own ones for each package are isolated
  python3 -m venv "$scratch/builder"
  "$scratch/builder/bin/python" -m pip install build
  # a build leaves folders behind: from a copy of what is not ignored
  git ls-files -z --cached --others --exclude-standard | tar cf - --null --files-from - | tar xf - -C "$scratch/sdist"
  "$scratch/builder/bin/python" -m build --outdir "$scratch/dist" "$scratch/sdist"
  rm -r "$scratch/sdist" && mkdir "$scratch/sdist"
  tar xzf "$scratch"/dist/*.tar.gz -C "$scratch/sdist" --strip-components 1
}

install() { # into the one environment of all checks
  [ -d "$scratch/bare" ] || python3 -m venv "$scratch/bare"
  "$scratch/bare/bin/python" -m pip install "$@"
}

no_checkout() { # the package that is imported is the installed one
  python -c 'import glue_sparse, sys; assert glue_sparse.__file__.startswith(sys.prefix), glue_sparse.__file__'
}

first_program() { # the first program of the README, as it stands
  python -c 'import re, sys; print(re.findall(r"```python\n(.*?)```", open(sys.argv[1]).read(), re.DOTALL)[0])' \
    "$checkout/README.md" >program.py
  python program.py
}

check "wheel and sdist are built" build
if [ -n "${TORCH:-}" ]; then check "$TORCH" install "$TORCH"; fi
check "the wheel is installed, with [offline]" install "$(echo "$scratch"/dist/*.whl)[offline]"

cd "$scratch/empty"
export PATH="$scratch/bare/bin:$PATH"
check "the package is the installed one" no_checkout
check "glue-sparse --help" glue-sparse --help
check "glue-sparse doctor" glue-sparse doctor
check "glue-sparse table run table_1 --dry_run" \
  glue-sparse table run table_1 --dry_run --model minilm --seeds 0 --tasks rte
check "glue-sparse train --task tweets" \
  glue-sparse train --task tweets --model minilm --method fish --max_train_samples 64 --max_eval_samples 64 \
  --num_samples 32 --num_train_epochs 1 --output_dir fish
check "glue-sparse diff show" glue-sparse diff show fish
check "the program of the README" first_program
# shellcheck disable=SC2086
check "glue-sparse quickstart ${QUICKSTART:-}" glue-sparse quickstart ${QUICKSTART:-}

cd "$scratch/sdist"
check "the sdist is installed, with [dev,offline]" install ".[dev,offline]"
check "its tests collect" python -m pytest --collect-only -p no:cacheprovider
tail -n 1 "$scratch/log"
