#!/bin/sh
# libpython.sh OUTPUT: links the interpreter's library anew from the distribution's own objects
# (libpython3.X-pic.a of libpython3.X-dev), without the built-in modules pyexpat and _elementtree.
#
# Why: they make libpython need libexpat.so.1, and that of Debian 12 asks for GLIBC_2.36
# (arc4random_buf), which the nodes we support do not have. Nothing of ours uses them.
set -eu
output=$1
python=$("$(dirname "$0")/choose-python.sh")
work=$(dirname "$output")
mkdir -p "$work"

get() { "$python" -ISc "import sysconfig; print($1)"; }
config=$(get 'sysconfig.get_config_var("LIBPL")')
version=$(get 'sysconfig.get_config_var("LDVERSION")')
include=$(get 'sysconfig.get_path("include")')
archive=$config/libpython$version-pic.a
[ -e "$archive" ] || { echo "libpython: no $archive: install libpython$version-dev" >&2; exit 1; }

rm -f "$work/objects.a" "$work/config.c" "$work/config.o"
cp "$archive" "$work/objects.a"
ar dD "$work/objects.a" pyexpat.o _elementtree.o config.o
# The table of built-in modules, without the two.
sed -E '/PyInit_(pyexpat|_elementtree)\>/d' "$config/config.c" > "$work/config.c"
gcc -O2 -fPIC -I"$include" -c "$work/config.c" -o "$work/config.o"
# -Bsymbolic: the library's references to itself are settled now, not at every start.
gcc -shared -s -o "$output" \
    -Wl,-soname,"$(basename "$output")" -Wl,--build-id=none -Wl,-O1 -Wl,-Bsymbolic -Wl,-z,relro -Wl,--no-undefined \
    -Wl,--whole-archive "$work/objects.a" -Wl,--no-whole-archive "$work/config.o" \
    -Wl,--as-needed -lm -lz -ldl
rm -f "$work/objects.a"
