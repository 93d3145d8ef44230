#!/bin/sh
# Makes or updates .venv from the lock, with the distribution's own Python. One at a time.
set -eu
cd "$(dirname "$0")/.."
python=$(packaging/choose-python.sh)
mkdir -p .cache
exec 9>.cache/venv.lock
flock 9

lock=packaging/requirements/dev.lock
stamp=.venv/.installed
wanted=$("$python" -VV; sha256sum "$lock")
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    touch "$stamp"
    exit 0
fi

echo "venv: installing the locked dependencies into .venv ($("$python" -V))"
if [ "$(.venv/bin/python -VV 2>/dev/null)" != "$("$python" -VV)" ]; then
    "$python" -m venv --clear .venv
fi
rm -f "$stamp"
# --compile: bytecode is wanted whatever PYTHONDONTWRITEBYTECODE says.
.venv/bin/python -I -m pip install --quiet --disable-pip-version-check --compile \
    --require-hashes --no-deps --only-binary :all: --requirement "$lock"
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pwd > "$site/azvnet-source.pth"
echo "$wanted" > "$stamp"
