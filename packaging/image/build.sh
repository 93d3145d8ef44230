#!/bin/sh
# Puts a container image together: dist/azvnet-image.tar, or with --operator dist/azvnet-operator-image.tar, and its
# bill of materials beside it. Needs the bundle (make build, make operator), neither a daemon nor a registry nor root.
# Does nothing when no input has changed and no other argument is given; --help shows the arguments.
# docs/kubernetes.md says what is in it.
set -eu
cd "$(dirname "$0")/../.."
title=azvnet
[ "${1:-}" != --operator ] || title=azvnet-operator
work=build/image
[ $title = azvnet ] || work=build/operator-image
archive=dist/$title-image.tar
mkdir -p "$work" .cache
exec 9>.cache/image.lock
flock 9

inputs=$(
    {
        sha256sum "dist/$title/azvnet-lib/MANIFEST" packaging/image/build.sh packaging/image/azvnet_image/*.py \
            packaging/requirements/dev.lock pyproject.toml LICENSE /etc/os-release /var/lib/dpkg/status
        echo "${SOURCE_DATE_EPOCH:-}"
    } | sha256sum
)
if { [ $# = 0 ] || [ "$*" = --operator ]; } && [ -e "$archive" ] && [ "$(cat "$work/inputs" 2>/dev/null)" = "$inputs" ]; then
    echo "image: $archive is up to date"
    exit 0
fi
# shellcheck disable=SC2086 # a list of words
image="env PYTHONPATH=packaging/image .venv/bin/python -P -m azvnet_image"
if [ $# != 0 ] && [ "$*" != --operator ]; then
    exec $image "$@"
fi
rm -f "$work/inputs"
$image "$@" --about "$work/about.json"
echo "$inputs" >"$work/inputs"
