#!/bin/sh
# Builds the Go programs that tests use, pinned by the go.mod and go.sum beside this script.
#
#   build.sh              cnitool, the reference plugins, our criclient
#   build.sh containerd   the newest containerd (Debian's is 1.6)
#   build.sh gvisor       runsc
#   build.sh kubernetes   etcd, Kubernetes, CoreDNS, helm, its e2e tests
#   build.sh kind         kind, the kubeadm of that Kubernetes, and the files of kind's node image
#   build.sh kwok         kwok, which plays the kubelets of nodes that do not exist
#
# Prints the folder with the programs: .cache/tools/SET-HASH, where the hash is over all inputs. So a
# second call costs nothing, and checkouts that differ can share a cache, which AZVNET_TOOLS_CACHE puts
# elsewhere. Folders that nobody asked for in three days go. A lock lets several callers ask at once. Go's
# own caches, wherever `go env` says, make a rebuild quick.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${AZVNET_TOOLS_CACHE:-$root/.cache/tools}
wanted=${1:-bin}
export CGO_ENABLED=0 GOWORK=off GOFLAGS="-mod=readonly -buildvcs=false"

inputs() {
    cd "$here"
    case $wanted in
        bin) sha256sum build.sh cni/go.mod cni/go.sum criclient/go.mod criclient/go.sum criclient/*.go ;;
        containerd | gvisor | kwok) sha256sum build.sh "$wanted/go.mod" "$wanted/go.sum" ;;
        kubernetes) sha256sum build.sh kubernetes/go.mod kubernetes/go.sum kubernetes/*/*.go ;;
        kind) sha256sum build.sh kind/go.mod kind/go.sum kubernetes/go.mod kubernetes/go.sum ;;
        *)
            echo "build.sh: unknown set '$wanted'; known sets are bin, containerd, gvisor, kind, kubernetes, kwok" >&2
            exit 2
            ;;
    esac
}

say() { printf '[tools] %s\n' "$*" >&2; }

build() { # build FOLDER PACKAGE...
    folder=$1
    shift
    say "$folder: modules"
    (cd "$here/$folder" && "$go" mod download)
    say "$folder: compiling (a minute or so the first time)"
    (cd "$here/$folder" && GOBIN=$bin "$go" install -trimpath -ldflags '-s -w' "$@")
}

# A command that prints one line a package, on stderr: shown as a count; all of it when it fails.
counted() { # counted PROGRAM COMMAND...
    program=$1
    shift
    log=$bin/.$program.log
    begun=$(date +%s)
    { "$@" 2>&1 && echo '#done'; } | tee "$log" | awk -v p="$program" '
        !/^[a-z0-9.-]+(\/|$)/ { next }
        ++n % 100 == 0 { printf "[tools] %s: %d packages compiled\n", p, n; fflush() }' >&2
    if [ "$(tail -n 1 "$log")" != '#done' ]; then
        tail -n 40 "$log" >&2
        say "$program: the build failed; all it said: $log"
        exit 1
    fi
    rm "$log"
    say "$program: $(($(date +%s) - begun)) s"
}

kwok() {
    build kwok tool
    stages=$(cd "$here/kwok" && "$go" list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
    for stage in node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease pod/fast/pod-delete; do
        install -m 644 "$stages/$stage.yaml" "$bin"
    done
}

modules() { # of Kubernetes; sets version and flags
    cd "$here/kubernetes"
    say "kubernetes: modules"
    "$go" mod download
    version=$("$go" list -m -f '{{.Version}}' k8s.io/kubernetes)
    minor=${version#v1.}
    v=k8s.io/component-base/version
    # Without these, clients are told v0.0.0.
    flags="-s -w -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*}"
}

kind() {
    build kind tool
    cp -rT "$(cd "$here/kind" && "$go" list -m -f '{{.Dir}}' sigs.k8s.io/kind)/images/base/files" "$bin/files"
    chmod -R u+w "$bin/files" # Go's cache of modules is read-only
    modules
    counted kubeadm nice "$go" build -v -trimpath -ldflags "$flags" -o "$bin/kubeadm" k8s.io/kubernetes/cmd/kubeadm
}

kubernetes() {
    modules
    # What agnhost's image has beside the program.
    porter=$("$go" list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images/agnhost/porter
    install -m 644 "$porter/localhost.crt" "$porter/localhost.key" "$bin"
    say "kubernetes: compiling $version (10 to 25 minutes the first time on two cores)"
    # All at once: while one program is linked, which takes one core, the other core goes on. "go test" shows no
    # progress; what it links is compiled here.
    # shellcheck disable=SC2046  # a list of packages
    counted kubernetes nice "$go" build -v -trimpath -ldflags "$flags" -o "$bin/" \
        go.etcd.io/etcd/server/v3 \
        k8s.io/kubernetes/cmd/kube-apiserver \
        k8s.io/kubernetes/cmd/kubelet \
        k8s.io/kubernetes/cmd/kube-controller-manager \
        k8s.io/kubernetes/cmd/kube-scheduler \
        k8s.io/kubernetes/cmd/kube-proxy \
        k8s.io/kubernetes/cmd/kubectl \
        ./coredns \
        k8s.io/kubernetes/test/images/agnhost \
        k8s.io/kubernetes/test/images/regression-issue-74839 \
        helm.sh/helm/v3/cmd/helm \
        github.com/onsi/ginkgo/v2/ginkgo \
        $("$go" list -f '{{join .XTestImports " "}} {{join .TestImports " "}}' ./e2e)
    mv "$bin/server" "$bin/etcd"
    # Without vet, which would look through all of Kubernetes again.
    counted e2e.test nice "$go" test -c -vet=off -trimpath -ldflags "$flags" -o "$bin/e2e.test" ./e2e
}

now=$(inputs)
bin=$cache/$wanted-$(printf '%s' "$now" | sha256sum | cut -c 1-12)
stamp=$bin/.complete
mkdir -p "$cache"
exec 9>"$cache/lock-$wanted"
flock 9
if [ -e "$stamp" ]; then
    touch "$bin"
    echo "$bin"
    exit 0
fi
find "$cache" -mindepth 1 -maxdepth 1 -name "$wanted-*" -mtime +2 -exec rm -rf {} +
mkdir -p "$bin"

if [ -x "$root/packaging/go-toolchain.sh" ]; then
    go=$("$root/packaging/go-toolchain.sh")
else
    go=$(command -v go) || {
        say "no Go compiler on PATH; install Go 1.26.6 or later (https://go.dev/dl)"
        exit 1
    }
fi
say "with $("$go" env GOVERSION)"
started=$(date +%s)
case $wanted in
    bin)
        build criclient .
        build cni tool
        ;;
    containerd) build containerd -tags no_zfs,no_devmapper,no_tracing tool ;;
    gvisor) build gvisor tool ;;
    kwok) (kwok) ;;
    kubernetes) (kubernetes) ;;
    kind) (kind) ;;
esac
touch "$stamp"
say "$(find "$bin" -type f -perm -u+x | wc -l) programs after $(($(date +%s) - started)) s"
echo "$bin"
