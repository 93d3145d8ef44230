#!/bin/sh
# A node with nothing on it: runs one ADD and one DEL of the bundle in a root file system that holds
# glibc, the bundle and what a kernel gives (/proc, /sys, /dev/null), read-only, with no shell, no PATH
# and /tmp as the test wants it. Started in new mount and network namespaces, which end with it.
#
# sealed.sh BUNDLE NAME-OF-PROGRAM SCRATCH KIND-OF-TMP [TRACE-FILE]
# Leaves in SCRATCH: add.json add.stderr add.code pod.txt del.stdout del.stderr del.code left.txt
set -eu
bundle=$1 program=$2 scratch=$3 kind=$4 trace=${5:-}

mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip link set lo up
ip link add eth0 address 00:0d:3a:6e:18:25 type veth peer name fabric
ip address add 10.0.0.4/16 dev eth0
ip link set eth0 up
ip link set fabric up
ip route add default via 10.0.0.1
ip netns add pod

root=$scratch/root
mkdir "$root"
mount -t tmpfs tmpfs "$root"
mkdir -p "$root/opt/azvnet" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/etc/kubernetes"
for library in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2; do
    for folder in /lib64 /lib/x86_64-linux-gnu; do
        [ ! -e "$folder/$library" ] || { mkdir -p "$root$folder" && cp -L "$folder/$library" "$root$folder/"; }
    done
done
mount --bind "$bundle" "$root/opt/azvnet"
mount --rbind /proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /run "$root/run"
: > "$root/dev/null"
mount --bind /dev/null "$root/dev/null"
cat > "$root/etc/kubernetes/interfaces.json" <<'JSON'
{"Interfaces": [{"MacAddress": "000D3A6E1825", "IsPrimary": true, "IPSubnets": [
  {"Prefix": "10.0.0.0/16", "IPAddresses": [
    {"Address": "10.0.0.4", "IsPrimary": true},
    {"Address": "10.0.0.5", "IsPrimary": false},
    {"Address": "10.0.0.6", "IsPrimary": false}]}]}]}
JSON
case $kind in
    missing) ;;
    readonly) mkdir "$root/tmp" ;;
    noexec) mkdir "$root/tmp" && mount -t tmpfs -o noexec tmpfs "$root/tmp" ;;
    full)
        mkdir "$root/tmp" && mount -t tmpfs -o size=4k tmpfs "$root/tmp"
        head -c 65536 /dev/zero > "$root/tmp/full" 2>/dev/null || true
        ;;
    *) echo "sealed: no kind of /tmp called $kind" >&2; exit 2 ;;
esac
mount -o remount,ro "$root"

call() {
    # shellcheck disable=SC2086  # the prefix is a command with arguments, or nothing
    env -i CNI_COMMAND="$1" CNI_CONTAINERID=sealed CNI_IFNAME=eth0 CNI_NETNS=/run/netns/pod CNI_PATH=/opt/azvnet PATH= \
        /usr/bin/env -u PATH ${2:-} /usr/sbin/chroot "$root" "/opt/azvnet/$program" <<'JSON'
{"cniVersion": "1.1.0", "name": "net", "type": "azvnet",
 "ipam": {"type": "azvnet-ipam", "environment": "file", "file": "/etc/kubernetes/interfaces.json"}}
JSON
}

code=0
call ADD ${trace:+"/usr/bin/strace -f -qq -o $trace -s 4096 -e trace=file,process,desc -e signal=none"} \
    > "$scratch/add.json" 2> "$scratch/add.stderr" || code=$?
echo "$code" > "$scratch/add.code"
ip -n pod -4 -oneline address show dev eth0 > "$scratch/pod.txt" 2>&1 || true
code=0
call DEL > "$scratch/del.stdout" 2> "$scratch/del.stderr" || code=$?
echo "$code" > "$scratch/del.code"
{
    ip -oneline link show | sed -n 's/^[0-9]*: \(azv[^:@]*\).*/link \1/p'
    [ ! -e "$root/tmp" ] || find "$root/tmp" -mindepth 1 ! -name full
} > "$scratch/left.txt"
