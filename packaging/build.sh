#!/bin/sh
# Builds a frozen bundle: dist/azvnet/ with azvnet, azvnet-ipam, azvnet-python and azvnet-lib/, or, with --operator,
# dist/azvnet-operator/ with azvnet, azvnet-python and azvnet-lib/. Does nothing when no input has changed. --force
# builds anyway; --output DIR leaves the bundle elsewhere.
set -eu
cd "$(dirname "$0")/.."
umask 022
output=
force=
kind=node
while [ $# -gt 0 ]; do
    case $1 in
        --force) force=1 ;;
        --operator) kind=operator ;;
        --output) output=$2; shift ;;
        *) echo "build: unknown argument $1" >&2; exit 2 ;;
    esac
    shift
done
case $kind in
    node) output=${output:-dist/azvnet} ;;
    operator) output=${output:-dist/azvnet-operator} ;;
esac

mkdir -p .cache build
exec 9>.cache/build.lock
flock 9

python=$(packaging/choose-python.sh)
work=build/$(basename "$output")-work
inputs=$(
    {
        echo "$kind"
        "$python" -VV
        gcc --version
        find cni_plugin ipam packaging/launcher -name '*.py' -o -name '*.[ch]' | LC_ALL=C sort | xargs sha256sum
        sha256sum conf/10-azvnet.conflist packaging/azvnet.spec packaging/boot.py packaging/build.sh \
            packaging/bundle_modules.py packaging/bundle_names.sh packaging/kubernetes_client.py \
            packaging/launcher/build.sh packaging/libpython.sh packaging/manifest.py packaging/prepare.py \
            packaging/requirements/dev.lock pyproject.toml
    } | sha256sum
)
if [ -z "$force" ] && [ -x "$output/azvnet" ] && [ "$(cat "$work/inputs" 2>/dev/null)" = "$inputs" ]; then
    echo "build: $output is up to date"
    exit 0
fi
rm -f "$work/inputs"

# The same inputs give the same bytes: no time, no random order, no path of this machine.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800}
export SOURCE_DATE_EPOCH PYTHONHASHSEED=0 LC_ALL=C.UTF-8 TZ=UTC
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME PYTHONOPTIMIZE LD_LIBRARY_PATH

echo "build: interpreter library without expat"
soname=$("$python" -ISc 'import sysconfig; print(sysconfig.get_config_var("INSTSONAME"))')
packaging/libpython.sh "$work/lib/$soname"

echo "build: freezing (about a minute)"
rm -rf "$work/dist" "$work/pyinstaller"
PYI_LOG_LEVEL=ERROR PYINSTALLER_CONFIG_DIR=$PWD/$work/config AZVNET_LIBPYTHON=$PWD/$work/lib/$soname PATH=$PWD/.venv/bin:$PATH \
    AZVNET_BUNDLE=$kind \
    .venv/bin/python -I -X no_debug_ranges -m PyInstaller --noconfirm --log-level ERROR \
    --distpath "$work/dist" --workpath "$work/pyinstaller" packaging/azvnet.spec

bundle=$work/dist/azvnet
if [ "$kind" = node ]; then
    .venv/bin/python -I -X no_debug_ranges packaging/prepare.py "$bundle/azvnet-lib"
    packaging/bundle_names.sh "$bundle"
else
    # Nobody waits for its start: no launcher before it.
    ln -s azvnet-python "$bundle/azvnet"
fi
chmod -R u=rwX,go=rX "$bundle"
[ "$(id -u)" != 0 ] || chown -hR 0:0 "$bundle"
.venv/bin/python -I packaging/manifest.py write "$bundle"
find "$bundle" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# One rename puts the new bundle in place: a running copy keeps its files, nobody sees half of it.
mkdir -p "$(dirname "$output")"
rm -rf "$work/previous"
[ ! -e "$output" ] || mv -T "$output" "$work/previous"
mv -T "$bundle" "$output"
rm -rf "$work/previous"
echo "$inputs" > "$work/inputs"
echo "build: $output: $(find "$output" -type f | wc -l) files, $(du -sh "$output" | cut -f1)"
