#!/bin/sh
# Installs the fuzzer into the cache, apart from the virtual environment: it has wheels for few platforms, and only
# `make fuzz` needs it. By checksum, and never built from source. Prints nothing when nothing is to do.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${IPVLAN_BANDWIDTH_CACHE:-$HOME/.cache/ipvlan-bandwidth}
folder=$cache/fuzz
stamp=$(cat "$root/tests/fuzz/requirements.lock" "$0" | sha256sum | cut -d' ' -f1)
[ "$(cat "$folder/.stamp" 2> /dev/null || true)" = "$stamp" ] && exit 0

echo "installing the fuzzer into $folder" >&2
rm -rf "$folder"
"$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --target "$folder" -r "$root/tests/fuzz/requirements.lock"
echo "$stamp" > "$folder/.stamp"
