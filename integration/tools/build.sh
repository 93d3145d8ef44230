#!/bin/sh
# Builds the Go programs that the integration tests use, pinned by go.mod and go.sum beside this
# script, into .cache/tools/bin: cnitool, the reference plugins, and our own criclient.
# A stamp over all inputs makes a second call cost nothing; a lock lets several callers ask at once.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${AZVNET_TOOLS_CACHE:-$root/.cache/tools}
bin=$cache/bin
stamp=$bin/.stamp

inputs() {
    cd "$here"
    sha256sum build.sh cni/go.mod cni/go.sum criclient/go.mod criclient/go.sum criclient/*.go
}

say() { printf '[tools] %s\n' "$*" >&2; }

build() { # build FOLDER PACKAGE...
    folder=$1
    shift
    say "$folder: modules"
    (cd "$here/$folder" && "$go" mod download)
    say "$folder: compiling (a minute or so the first time)"
    (cd "$here/$folder" && GOBIN=$bin CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly \
        "$go" install -trimpath -ldflags '-s -w' "$@")
}

mkdir -p "$bin"
exec 9>"$cache/lock"
flock 9

wanted=$(inputs)
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

if [ -x "$root/packaging/go-toolchain.sh" ]; then
    go=$("$root/packaging/go-toolchain.sh")
else
    go=$(command -v go) || {
        say "no Go compiler on PATH; install Go 1.24 or later (https://go.dev/dl)"
        exit 1
    }
fi
say "with $("$go" env GOVERSION)"
started=$(date +%s)
rm -f "$stamp"
build criclient .
build cni tool
printf '%s\n' "$wanted" >"$stamp"
say "$(find "$bin" -type f -perm -u+x | wc -l) programs in ${bin#"$root"/} after $(($(date +%s) - started)) s"
