#!/bin/sh
# Makes or refreshes the virtual environment that everything runs in: python from Debian, packages from the
# lock file by checksum, and bcc, which exists only as a Debian package. Prints nothing when nothing is to do.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${IPVLAN_BANDWIDTH_CACHE:-$HOME/.cache/ipvlan-bandwidth}
venv=$cache/venv
stamp=$(cat "$root/requirements-dev.lock" "$0" | sha256sum | cut -d' ' -f1)
[ "$(cat "$venv/.stamp" 2>/dev/null || true)" = "$stamp" ] && exit 0

echo "making the virtual environment $venv" >&2
mkdir -p "$cache"
rm -rf "$venv"
/usr/bin/python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$root/requirements-dev.lock"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Only bcc itself, not all of Debian's packages: the lock file decides the rest.
ln -sfn /usr/lib/python3/dist-packages/bcc "$site/bcc"
echo "$stamp" > "$venv/.stamp"
