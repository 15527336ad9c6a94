#!/usr/bin/env bash
# The main job on data and a model that need no network: one model on real tweets in several ways, then a table and a
# page (runs/quickstart/report.html) of what each costs and is good for. Less than six minutes on 2 cores after
# installation.
source "$(dirname "$0")/scripts/environment.sh" offline,report

python -m glue_sparse quickstart "$@"
if [ -n "${VIRTUAL_ENV:-}" ]; then
  echo "environment:                source ${VIRTUAL_ENV#"$PWD"/}/bin/activate"
fi
