#!/bin/sh
# Installs the Debian packages that building and testing need, and those given as arguments. Prints nothing when nothing
# is to do.
set -eu

# python3-bpfcc, libbpf1, linux-libc-dev: the reconciler compiles, loads and reads its program with them.
# user-mode-linux, kmod: the kernels of the tests; runc, iptables, e2fsprogs, busybox-static, apparmor: the cluster's nodes.
# iperf3, iproute2, iputils-ping, ethtool: what tests measure with, and people.
# buildah, mmdebstrap: the images.
# jq: what the documentation has people run, in its tests.
# gcc, libc6-dev: the shaper as a program of the machine, for its unit tests.
# git: the version that results are of.
packages="python3 python3-venv python3-bpfcc libbpf1 linux-libc-dev
    user-mode-linux kmod runc iptables e2fsprogs busybox-static apparmor util-linux procps
    iperf3 iproute2 iputils-ping ethtool
    buildah mmdebstrap
    gcc libc6-dev ca-certificates git make jq $*"
# Debian 12's Go only fetches a newer one.
command -v go > /dev/null || [ -x /usr/local/go/bin/go ] || packages="$packages golang-go"

missing=
for package in $packages; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

[ "$(id -u)" = 0 ] || {
    echo "these Debian packages are missing, and only root can install them:$missing" >&2
    exit 1
}
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 - a list of words
if ! { apt-get update && apt-get install --yes --no-install-recommends $missing; } > "$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "apt-get could not install:$missing" >&2
    exit 1
fi
