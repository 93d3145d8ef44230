#!/bin/sh
# Prints the path of a Go compiler that is new enough for the integration tests' tools.
#
# An installed one if it is at least 1.26.6. Otherwise the distribution's golang-go, whatever its age,
# fetches a pinned toolchain as what it has been published as since Go 1.21: a module. Go older than
# 1.21 cannot switch to it by itself, and modules carry no executable bits, so that is done here.
set -eu
wanted=1.26.6
pinned=1.26.11
sum='h1:KyINmJ/FQdKRmDYGuTAAXkumyeR2DyUlSNHZj7XaLFg='

new_enough() {
    "$1" version >/dev/null 2>&1 || return 1
    version=$(GOTOOLCHAIN=local "$1" env GOVERSION | sed 's/^go//; s/[^0-9.].*//')
    [ "$(printf '%s\n' "$wanted" "$version" | sort -V | head -n 1)" = "$wanted" ]
}

for candidate in $(command -v go || true) /usr/local/go/bin/go /usr/lib/go-1.2[6-9]/bin/go /usr/lib/go/bin/go; do
    if new_enough "$candidate"; then
        echo "$candidate"
        exit 0
    fi
done

root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/.cache/go-toolchain
release=v0.0.1-go$pinned.linux-amd64
go=$cache/golang.org/toolchain@$release/bin/go
if [ -x "$go" ] && new_enough "$go"; then
    echo "$go"
    exit 0
fi

if [ "$(uname -m)" != x86_64 ]; then
    echo "go-toolchain: no pinned toolchain for $(uname -m); install Go $wanted or later" >&2
    exit 1
fi

mkdir -p "$cache"
exec 8>"$cache/lock"
flock 8
if ! old=$(command -v go); then
    [ "$(id -u)" = 0 ] || { echo "go-toolchain: no Go. Run: sudo apt-get install golang-go" >&2; exit 1; }
    echo "go-toolchain: installing the distribution's golang-go" >&2
    export DEBIAN_FRONTEND=noninteractive
    install="apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install --no-install-recommends golang-go"
    $install >&2 || { apt-get -q update >&2 && $install >&2; }
    old=$(command -v go)
fi
if new_enough "$old"; then
    echo "$old"
    exit 0
fi

echo "go-toolchain: fetching Go $pinned as a module with $("$old" version)" >&2
# The checksum database need not be asked: the hash is compared with ours below.
cd "$cache"
got=$(GOTOOLCHAIN=local GOFLAGS='' GO111MODULE=on GOWORK=off GOMODCACHE=$cache GOSUMDB=off \
    "$old" mod download -json "golang.org/toolchain@$release" |
    sed -n 's/.*"Sum": "\(.*\)".*/\1/p')
if [ "$got" != "$sum" ]; then
    chmod -R u+w "$cache/golang.org" 2>/dev/null || true
    rm -rf "$cache/golang.org" "$cache/cache"
    echo "go-toolchain: Go $pinned has the hash '$got', expected '$sum'" >&2
    exit 1
fi
chmod -R u+w "${go%/bin/go}"
find "${go%/go}" "${go%/bin/go}/pkg/tool" -type f -exec chmod +x {} +
new_enough "$go"
echo "$go"
