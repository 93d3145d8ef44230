#!/bin/sh
# The plain manifest is what the chart comes to with its defaults: render.sh writes it anew, or, with --check, says
# whether it is so. HELM is the helm to use; `make kubernetes` builds one.
set -eu
cd "$(dirname "$0")/../.."
helm=${HELM:-$(integration/tools/build.sh kubernetes)/helm}
manifest=packaging/kubernetes/azvnet.yaml
mkdir -p build
{
    echo "# Everything of azvnet for a cluster: kubectl apply -f azvnet.yaml. Made of packaging/helm/azvnet by"
    echo "# packaging/kubernetes/render.sh; change it there. docs/kubernetes.md says what has to be known."
    "$helm" template azvnet packaging/helm/azvnet --namespace kube-system --kube-version 1.34.0
} >build/azvnet.yaml
if [ "${1:-}" = --check ]; then
    diff -u "$manifest" build/azvnet.yaml || {
        echo "render: $manifest is not what the chart comes to: run packaging/kubernetes/render.sh" >&2
        exit 1
    }
else
    cp build/azvnet.yaml "$manifest"
    echo "render: $manifest is written"
fi
