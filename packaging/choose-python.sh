#!/bin/sh
# Prints the interpreter that everything is built and tested with.
#
# It has to be the distribution's own: PyInstaller needs a libpython that is a shared library, and
# an interpreter found first in PATH (pyenv, conda, a toolcache) often has none, or one that was
# built on another machine. PYTHON=... overrides the choice.
set -eu

usable() {
    [ -x "$1" ] && "$1" -I -S - <<'PY' 2>/dev/null
import sys
import sysconfig

sys.exit(not (sys.version_info >= (3, 11) and sysconfig.get_config_var("Py_ENABLE_SHARED")))
PY
}

if [ -n "${PYTHON:-}" ]; then
    found=$(command -v "$PYTHON") || { echo "choose-python: PYTHON=$PYTHON: no such program" >&2; exit 1; }
    echo "$found"
    exit 0
fi

for candidate in /usr/bin/python3 /usr/bin/python3.12 /usr/bin/python3.11; do
    if usable "$candidate"; then
        echo "$candidate"
        exit 0
    fi
done

echo "choose-python: no Python >= 3.11 with a shared libpython in /usr/bin." >&2
echo "Run packaging/bootstrap.sh, or set PYTHON=/path/to/python3." >&2
exit 1
