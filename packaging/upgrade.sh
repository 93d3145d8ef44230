#!/bin/sh
# Upgrades the Debian packages whose files go into the bundle and the image to the newest that the release
# offers. The image is not made of older ones; AZVNET_OLD_PACKAGES=1 leaves them as they are, and allows them.
set -eu
[ -z "${AZVNET_OLD_PACKAGES:-}" ] || exit 0
command -v apt-get >/dev/null || exit 0 # the image says that it needs Debian or Ubuntu

# tests/image/test_bill.py holds these patterns against what is in the image.
embedded='libbz2-1.0* libc6* libexpat1* libffi[0-9]* libgcc-s1 liblzma5 libpython3.* libsqlite3-0 libssl[0-9]* libuuid1
    musl-dev musl-tools python3.* zlib1g*'
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt="apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"
root() {
    [ "$(id -u)" = 0 ] || { echo "upgrade: needs root: $*" >&2; exit 1; }
    echo "upgrade: $*"
    log=$("$@" 2>&1) || { echo "$log" >&2; echo "upgrade: set AZVNET_OLD_PACKAGES=1 to build without upgrading" >&2; exit 1; }
}

# What apt knows of its sources is good for a day.
lists=$(find /var/lib/apt/lists -maxdepth 1 -name '*Release' -mmin -1440 2>/dev/null | head -n 1)
# shellcheck disable=SC2086 # lists of words
[ -n "$lists" ] || root $apt update
# shellcheck disable=SC2086
installed=$(dpkg-query --show --showformat='${db:Status-Abbrev}${Package}\n' $embedded 2>/dev/null | sed -n 's/^ii *//p')
# shellcheck disable=SC2086
outdated=$($apt --simulate --only-upgrade install $installed | sed -n 's/^Inst \([^ ]*\) .*/\1/p' | tr '\n' ' ')
# shellcheck disable=SC2086
[ -z "$outdated" ] || root $apt --only-upgrade install $outdated
