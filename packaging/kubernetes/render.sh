#!/bin/sh
# The plain manifests are the chart rendered with its defaults. render.sh writes them again; with --check it
# only checks that they are up to date. HELM is the helm to use; by default the one that `make kubernetes` builds.
set -eu
cd "$(dirname "$0")/../.."
helm=${HELM:-$(integration/tools/build.sh kubernetes)/helm}
check=${1:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

render() { # render FILE WHAT [ARGUMENT...]
    file=$1
    {
        printf '# %s\n' "$2"
        printf '# Generated from packaging/helm/azvnet by packaging/kubernetes/render.sh: edit the chart instead.\n'
        shift 2
        "$helm" template azvnet packaging/helm/azvnet --namespace kube-system --kube-version 1.34.0 "$@"
    } >"$work/$file"
    if [ "$check" = --check ]; then
        diff -u "packaging/kubernetes/$file" "$work/$file" || {
            echo "render: $file is not up to date with the chart: run packaging/kubernetes/render.sh" >&2
            exit 1
        }
    else
        cp "$work/$file" "packaging/kubernetes/$file"
        echo "render: packaging/kubernetes/$file is written"
    fi
}

render azvnet.yaml "Everything of azvnet for a cluster: kubectl apply -f azvnet.yaml. See docs/kubernetes.md."
render uninstall.yaml "Takes azvnet off every node, once azvnet.yaml was deleted. See docs/kubernetes.md." \
    --set uninstall.enabled=true
