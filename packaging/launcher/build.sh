#!/bin/sh
# Builds the launcher: build.sh OUT [FLAG...]
# Same source and compiler, same bytes, wherever it is built. FLAGs are put behind ours (the tests sanitise with
# them); LINK replaces how it is linked, SOURCE what is compiled, STRIP=no keeps the symbols, CC is the compiler.
# With musl, whose start is a tenth of a static glibc's; what is linked otherwise (sanitisers) is with glibc.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: build.sh OUT [FLAG...]" >&2; exit 2; }
out=$1
shift
cc=musl-gcc
[ -z "${LINK:-}" ] || cc=gcc
# Static and at a fixed place: no dynamic loader and no relocation at start. The rest is as strict as gcc goes.
# shellcheck disable=SC2086 # LINK is a list of words
"${CC:-$cc}" -std=c11 -O2 -g0 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wvla -Wformat=2 \
    -Wcast-align=strict -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wswitch-enum -Werror \
    -fstack-protector-strong -fno-ident -frandom-seed=azvnet "-ffile-prefix-map=$here=." \
    ${LINK:--static -no-pie -fno-pie -Wl,--build-id=none,-z,relro,-z,now,-z,noexecstack,--gc-sections} \
    -o "$out" "$here/${SOURCE:-launcher.c}" "$@"
[ "${STRIP:-yes}" = no ] || "${STRIP_PROGRAM:-strip}" --strip-all --remove-section=.comment "$out"
