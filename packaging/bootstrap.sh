#!/bin/sh
# Installs the Debian/Ubuntu packages that building and testing azvnet need. Quiet and quick when
# everything is there; asks for what is used (a program or a file), not for package names, so that
# another provider of the same program (a runtime from elsewhere, a Go in /usr/local) is left alone.
#
#   bootstrap.sh            what building and every layer of tests but e2e need
#   bootstrap.sh cluster    that, and what a cluster and Kubernetes' e2e specs need
#   bootstrap.sh kind       that, and what makes the root of kind's node image
#   bootstrap.sh traffic    what building needs, and what measures the speed of pods' packets
set -eu

# package                 program or file that proves it is there
WANTED='
binutils                  objdump
busybox-static            /bin/busybox
ca-certificates           /etc/ssl/certs/ca-certificates.crt
conntrack                 conntrack
containerd                containerd
gcc                       gcc
git                       git
iproute2                  ip
iptables                  iptables
iputils-ping              ping
kmod                      modprobe
libc6-dev                 c:gnu/libc-version.h
make                      make
musl-tools                musl-gcc
netcat-openbsd            nc
nftables                  nft
procps                    ps
@python-dev               python:shared
@python-venv              python:ensurepip
runc                      runc
shellcheck                shellcheck
strace                    strace
tcpdump                   tcpdump
util-linux                unshare
'

WANTED_CLUSTER='
bind9-dnsutils            dig
curl                      curl
dash                      dash
ipset                     ipset
netcat-openbsd            nc.openbsd
wget                      wget
'

# Docker is not here: installed, it would start a daemon on this machine. integration/kind unpacks it.
WANTED_KIND='
dpkg                      dpkg-deb
mmdebstrap                mmdebstrap
tar                       tar
'

WANTED_TRAFFIC='
iperf3                    iperf3
'

case ${1:-} in
    '') ;;
    cluster) WANTED=$WANTED$WANTED_CLUSTER ;;
    kind) WANTED=$WANTED$WANTED_CLUSTER$WANTED_KIND ;;
    traffic) WANTED=$WANTED$WANTED_TRAFFIC ;;
    *)
        echo "bootstrap: unknown list '$1'; known lists are cluster, kind and traffic" >&2
        exit 2
        ;;
esac

have() {
    case $1 in
        /*) [ -e "$1" ] ;;
        c:*) [ -e "/usr/include/${1#c:}" ] || gcc -include "${1#c:}" -E -x c /dev/null >/dev/null 2>&1 ;;
        python:shared)
            [ -n "$(find /usr/lib -maxdepth 3 -name 'libpython3.*-pic.a' 2>/dev/null)" ] &&
                python=$("$here/choose-python.sh" 2>/dev/null) &&
                [ -e "$("$python" -ISc 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
            ;;
        python:ensurepip)
            python=$("$here/choose-python.sh" 2>/dev/null) && "$python" -ISc 'import ensurepip, venv' 2>/dev/null
            ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# Ubuntu 22.04's python3 is 3.10; its python3.11 stands beside it.
python_package() {
    if /usr/bin/python3 -ISc 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || [ ! -e /usr/bin/python3 ]; then
        echo "python3-$1"
    else
        echo "python3.11-$1"
    fi
}

here=$(dirname "$0")
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing_packages() {
    echo "$WANTED" | while read -r package proof; do
        if [ -n "$package" ] && ! have "$proof"; then
            case $package in
                @python-*) python_package "${package#@python-}" ;;
                *) echo "$package" ;;
            esac
        fi
    done | tr '\n' ' '
}

missing=$(missing_packages)
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "bootstrap: missing packages (Debian's names): $missing" >&2
    echo "bootstrap: apt-get not found; install the equivalent packages and run make again." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "bootstrap: missing packages. Run: sudo apt-get install --no-install-recommends $missing" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt="apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

try() {
    echo "bootstrap: $*"
    $apt "$@" >"$log" 2>&1
}

install() {
    # shellcheck disable=SC2086  # a list of package names
    try install --no-install-recommends $missing && return
    # The package lists are missing or too old for the mirror: fetch them and try again.
    for attempt in 1 2 3; do
        # shellcheck disable=SC2086
        if try update && try install --no-install-recommends $missing; then
            return
        fi
        echo "bootstrap: attempt $attempt failed: $(tail -n 1 "$log")" >&2
        sleep $((attempt * 5))
    done
    cat "$log" >&2
    echo "bootstrap: could not install: $missing" >&2
    exit 1
}

install
# Where there was no Python at all, only now is seen which one the distribution has.
missing=$(missing_packages)
[ -z "$missing" ] || install
missing=$(missing_packages)
if [ -n "$missing" ]; then
    echo "bootstrap: installed, and still not found: $missing" >&2
    exit 1
fi
