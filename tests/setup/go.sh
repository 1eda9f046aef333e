#!/bin/sh
# Prints the path of a Go that can build the cluster's binaries: the one on PATH when it is new enough, else one fetched
# with the help of an older Go (Debian 12's golang-go is 1.19). Go publishes its toolchains as versions of the module
# golang.org/toolchain; the old Go fetches that like any module, checked against Go's checksum database, and the sum
# below is checked here too.
set -eu
version=1.26.8
sum=h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=
needed_minor=26

cache=${IPVLAN_BANDWIDTH_CACHE:-$HOME/.cache/ipvlan-bandwidth}
own=$cache/go-$version

recent() {
    minor=$(GOTOOLCHAIN=local "$1" env GOVERSION 2> /dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge "$needed_minor" ]
}

for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$own/bin/go"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ] && recent "$candidate"; then
        echo "$candidate"
        exit 0
    fi
done

old=$(command -v go || true)
[ -n "$old" ] || old=$(ls /usr/lib/go-*/bin/go 2> /dev/null | tail -n 1)
[ -n "$old" ] || {
    echo "no go at all: install Debian's golang-go, or Go 1.$needed_minor or later" >&2
    exit 1
}
[ "$(uname -m)" = x86_64 ] || {
    echo "only the toolchain for x86_64 is pinned here: install Go 1.$needed_minor or later and put it on PATH" >&2
    exit 1
}
echo "fetching Go $version, as $old is too old" >&2
mkdir -p "$cache"
work=$(mktemp -d "$cache/go-making-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
echo 'module toolchain' > go.mod
module=golang.org/toolchain@v0.0.1-go$version.linux-amd64
GOMODCACHE=$work/modules GOFLAGS=-modcacherw GOTOOLCHAIN=local "$old" mod download -json "$module" > fetched.json || {
    cat fetched.json >&2
    exit 1
}
grep -q "\"Sum\": \"$sum\"" fetched.json || {
    echo "the toolchain fetched for Go $version does not have the sum pinned in $0" >&2
    exit 1
}
# A module's files have no permission to be executed: go restores these when it fetches a toolchain by itself.
chmod -R +x "modules/$module/bin" "modules/$module/pkg/tool"
rm -rf "$own"
mv "modules/$module" "$own"
echo "$own/bin/go"
