#!/bin/sh
# Every check that reads the sources: all are made, also when one before failed.
set -u
cd "$(dirname "$0")/.." || exit
failed=0
check() {
    packaging/step.sh "$@" || failed=1
}

check "ruff" .venv/bin/ruff check --quiet .
check "format" .venv/bin/ruff format --check --quiet .
check "mypy" .venv/bin/mypy
if command -v shellcheck >/dev/null; then
    # shellcheck disable=SC2046  # no script has a space in its name
    check "shellcheck" shellcheck --severity=warning .ci/run $(git ls-files --cached --others --exclude-standard '*.sh')
else
    echo "lint: no shellcheck on this machine: the shell scripts are not checked ('make lint' installs it)" >&2
fi
check "hygiene" packaging/hygiene.sh
exit $failed
