#!/bin/sh
# Writes the lock files from the ranges in pyproject.toml. Needs a package index, and uv in the venv.
#
#   packaging/lock.sh             keep what is locked, change only what pyproject.toml demands
#   packaging/lock.sh --upgrade   the newest of everything that the ranges allow
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
[ -x "$uv" ] || { echo "lock: no uv in .venv: run 'make venv' first, or set UV=/path/to/uv" >&2; exit 1; }

compile() {
    echo "lock: $1"
    output=packaging/requirements/$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-emit-find-links --custom-compile-command 'make lock' --output-file "$output" "$@"
}

compile runtime.lock "$@" pyproject.toml
# What the operator shares with a node has the same version in both bundles.
compile operator.lock "$@" --constraints packaging/requirements/runtime.lock --group operator pyproject.toml
# The dev lock holds the same versions as the others: what is tested is what is shipped.
compile dev.lock "$@" --constraints packaging/requirements/operator.lock --group dev pyproject.toml
