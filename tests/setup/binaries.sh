#!/bin/sh
# Builds the embedded cluster's binaries from Go modules, pinned by tests/cluster/binaries/go.mod and go.sum, into the
# cache; and the few small programs of the tests' own that are in Go. Each is built again only when what it is made from
# changed. Prints nothing when nothing is to do. With names as arguments, only these; without, all but promtool.
#
#   KUBEBUILDER_ASSETS   a folder with etcd, kube-apiserver and kubectl: they are taken from there, and not built
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${IPVLAN_BANDWIDTH_CACHE:-$HOME/.cache/ipvlan-bandwidth}
modules=$root/tests/cluster/binaries
bin=$cache/bin
stamps=$cache/stamps/binaries

# Name, package and, where it is not that of the cluster's binaries, the module's folder; the small ones first, so that
# trouble shows early.
binaries="
quantity ./quantity
admission-load ./load tests/bench/admission-go
admission-webhook ./webhook tests/bench/admission-go
host-local github.com/containernetworking/plugins/plugins/ipam/host-local
ipvlan github.com/containernetworking/plugins/plugins/main/ipvlan
loopback github.com/containernetworking/plugins/plugins/main/loopback
ptp github.com/containernetworking/plugins/plugins/main/ptp
multus-standin ./multus-standin
cert-manager . tests/cluster/cert-manager
promtool github.com/prometheus/prometheus/cmd/promtool tests/prometheus
ctr github.com/containerd/containerd/v2/cmd/ctr
containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
containerd github.com/containerd/containerd/v2/cmd/containerd
etcd go.etcd.io/etcd/server/v3
kubectl k8s.io/kubernetes/cmd/kubectl
kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler
kubelet k8s.io/kubernetes/cmd/kubelet
older/ctr github.com/containerd/containerd/v2/cmd/ctr tests/cluster/older
older/containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 tests/cluster/older
older/containerd github.com/containerd/containerd/v2/cmd/containerd tests/cluster/older
"
# Kubernetes' components say this version, which the API server's skew checks read.
kubernetes=$(sed -n 's,^[[:space:]]*k8s.io/kubernetes v\([0-9.]*\).*,\1,p' "$modules/go.mod")
major=${kubernetes%%.*}
minor=${kubernetes#*.}
minor=${minor%%.*}
version=k8s.io/component-base/version
ldflags="-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=$major -X $version.gitMinor=$minor"
# Prometheus', which the others do not know: without the clients of all clouds, which promtool finds targets with.
tags=remove_all_sd

stamp_of() {
    case $1 in
        multus-standin | quantity) cat "$modules/go.mod" "$modules/go.sum" "$modules/$1"/*.go ;;
        admission-*) cat "$root"/tests/bench/admission-go/go.mod "$root/tests/bench/admission-go/${1#admission-}"/*.go ;;
        cert-manager) cat "$root"/tests/cluster/cert-manager/* ;;
        promtool) echo "$tags" && cat "$root"/tests/prometheus/go.mod "$root"/tests/prometheus/go.sum ;;
        older/*) cat "$root"/tests/cluster/older/go.mod "$root"/tests/cluster/older/go.sum ;;
        *) cat "$modules/go.mod" "$modules/go.sum" ;;
    esac | { cat && echo "$ldflags"; } | sha256sum | cut -d' ' -f1
}

# The kinds that cert-manager serves; from its module too, which building it has fetched.
take_crds() {
    rm -rf "$cache/cert-manager"
    module=$("$go" list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)
    install -D -m 644 -t "$cache/cert-manager" "$module"/deploy/crds/*.yaml
}

wanted=
while read -r name package folder; do
    [ -n "$name" ] || continue
    # Whoever wants a cluster need not wait for it.
    [ "$name" != promtool ] || [ -n "$*" ] || continue
    [ -z "$*" ] || case " $* " in
        *" $name "*) ;;
        *) continue ;;
    esac
    case $name in
        etcd | kube-apiserver | kubectl)
            [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$name" ] && continue
            ;;
    esac
    [ -x "$bin/$name" ] && [ "$(cat "$stamps/$name" 2> /dev/null || true)" = "$(stamp_of "$name")" ] && continue
    wanted="$wanted$name $package $folder
"
done << END
$binaries
END
[ -n "$wanted" ] || exit 0

go=$("$root/tests/setup/go.sh")
mkdir -p "$bin/older" "$stamps/older"
total=$(printf '%s' "$wanted" | wc -l)
echo "building $total of the tests' Go programs into $bin (on two cores, all of them take about 15 minutes, once)" >&2
number=0
began=$(date +%s)
printf '%s' "$wanted" | while read -r name package folder; do
    number=$((number + 1))
    since=$(date +%s)
    printf '  %2d of %d  %-30s' "$number" "$total" "$name" >&2
    cd "${folder:+$root/}${folder:-$modules}"
    # To another name first: a running cluster keeps the file it has.
    CGO_ENABLED=0 GOTOOLCHAIN=local "$go" build -mod=readonly -trimpath -buildvcs=false -tags "$tags" \
        -ldflags "$ldflags" -o "$bin/$name.new" "$package" < /dev/null || {
        echo "building $name failed: see above; a network failure is mended by running this again" >&2
        exit 1
    }
    [ "$name" != cert-manager ] || take_crds
    mv "$bin/$name.new" "$bin/$name"
    stamp_of "$name" > "$stamps/$name"
    now=$(date +%s)
    printf '%4d s  (%d s in all)\n' $((now - since)) $((now - began)) >&2
done
