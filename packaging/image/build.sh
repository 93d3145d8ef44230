#!/bin/sh
# Puts the container image together: dist/azvnet-image.tar, and its bill of materials beside it. Needs the bundle
# (make build), neither a daemon nor a registry nor root. Does nothing when no input has changed and no argument is
# given; --help shows the arguments. docs/kubernetes.md says what is in it.
set -eu
cd "$(dirname "$0")/../.."
archive=dist/azvnet-image.tar
mkdir -p build/image .cache
exec 9>.cache/image.lock
flock 9

inputs=$(
    {
        sha256sum dist/azvnet/azvnet-lib/MANIFEST packaging/image/build.sh packaging/image/azvnet_image/*.py \
            packaging/requirements/dev.lock pyproject.toml LICENSE /etc/os-release /var/lib/dpkg/status
        echo "${SOURCE_DATE_EPOCH:-}"
    } | sha256sum
)
if [ $# = 0 ] && [ -e "$archive" ] && [ "$(cat build/image/inputs 2>/dev/null)" = "$inputs" ]; then
    echo "image: $archive is up to date"
    exit 0
fi
# shellcheck disable=SC2086 # a list of words
image="env PYTHONPATH=packaging/image .venv/bin/python -P -m azvnet_image"
if [ $# != 0 ]; then
    exec $image "$@"
fi
rm -f build/image/inputs
$image --about build/image/about.json
echo "$inputs" >build/image/inputs
