#!/bin/sh
# Fetches Debian's kernels for the kernel tests under QEMU into the cache: `kernels.sh 5.10 6.1 6.12 newest`. By apt, from
# the mirror that this machine has, checked against Debian's keys; by an apt configuration of its own, and unpacked only:
# nothing is installed. Each is fetched once; to follow a release, remove its folder. Prints nothing when nothing is to do.
#
# In the cache then: kernels/6.1/vmlinuz, kernels/6.1/initramfs (what it takes to mount 9p), kernels/6.1/lib/modules.
set -eu
cache=${IPVLAN_BANDWIDTH_CACHE:-$HOME/.cache/ipvlan-bandwidth}/kernels
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

release_of() {
    case $1 in
        5.10) echo bullseye ;;
        6.1) echo bookworm ;;
        6.12) echo trixie ;;
        newest) echo sid ;;
        *) echo "no kernel $1 is known here: 5.10, 6.1, 6.12, newest" >&2 && return 1 ;;
    esac
}

fail() {
    cat "$work/log" >&2
    echo "$1; a network failure is mended by running this again" >&2
    exit 1
}

# The mirror that this machine's own apt uses for its release, and for its release's security updates.
mirror_of() {
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v release="$1" '$1 == release { print $2; exit }'
}

private_apt() {
    tool=$1
    shift
    "$tool" -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State="$work/state" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$work/apt" -o APT::Architecture=amd64 \
        -o APT::Architectures=amd64 -o APT::Sandbox::User=root -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Check-Valid-Until=false "$@" # a release that is no more updated keeps its last date
}

# Packages that hold a kernel: the metapackage names the image, which in newer releases names further ones.
packages_of_kernel() {
    private_apt apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances linux-image-amd64 | grep -E '^linux-(image|base|binary|modules)-[0-9].*-amd64$' | grep -v unsigned
}

fetch() {
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mirror=$(mirror_of "$codename")
    security=$(mirror_of "$codename-security")
    [ -n "$mirror" ] || {
        echo "this machine's apt sources name no mirror of $codename: they must, to fetch other releases' kernels" >&2
        exit 1
    }
    mkdir -p "$work/state/lists/partial" "$work/apt/archives/partial" "$work/root"
    echo "deb [signed-by=$keyring] $mirror $release main" > "$work/sources.list"
    [ "$release" = sid ] || [ -z "$security" ] ||
        echo "deb [signed-by=$keyring] $security $release-security main" >> "$work/sources.list"
    private_apt apt-get update > "$work/log" 2>&1 || fail "cannot list the packages of $release"
    packages=$(packages_of_kernel)
    [ -n "$packages" ] || fail "$release has no linux-image-amd64"
    # shellcheck disable=SC2086 - a list of words
    (cd "$work" && private_apt apt-get download $packages) > "$work/log" 2>&1 || fail "cannot fetch $packages"
    for package in "$work"/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
}

# Newer packages have modules and image in usr/lib/modules; modprobe -d expects lib/modules.
arrange() {
    mkdir -p "$work/done/lib/modules"
    find "$work/root" -type f -name 'vmlinuz*' -exec mv '{}' "$work/done/vmlinuz" ';'
    for modules in "$work"/root/lib/modules/* "$work"/root/usr/lib/modules/*; do
        [ ! -d "$modules/kernel" ] || mv "$modules" "$work/done/lib/modules/"
    done
    version=$(ls "$work/done/lib/modules")
    depmod -b "$work/done" "$version"
}

# The first file system: busybox, and the modules that mounting the machine's files takes.
make_initramfs() {
    tree=$work/initramfs
    mkdir -p "$tree/bin" "$tree/modules" "$tree/machine" "$tree/proc"
    cp "$(command -v busybox)" "$tree/bin/busybox"
    number=10
    : > "$work/needed"
    for module in virtio_pci 9pnet_virtio 9p; do
        modprobe -d "$work/done" -S "$version" --show-depends "$module" >> "$work/needed"
    done
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }' "$work/needed" | while read -r path; do
        name=$(basename "$path")
        case $path in
            *.xz) xz -dc "$path" > "$tree/modules/$number-${name%.xz}" ;;
            *.zst) zstd -qdc "$path" > "$tree/modules/$number-${name%.zst}" ;;
            *) cp "$path" "$tree/modules/$number-$name" ;;
        esac
        number=$((number + 1))
    done
    cat > "$tree/init" << 'END'
#!/bin/busybox sh
for module in /modules/*; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /machine
exec /bin/busybox switch_root /machine "$GUEST_INIT"
END
    chmod +x "$tree/init" "$tree/bin/busybox"
    (cd "$tree" && find . | busybox cpio -o -H newc 2> /dev/null | gzip -1) > "$work/done/initramfs"
}

for kernel in "$@"; do
    release=$(release_of "$kernel")
    [ ! -e "$cache/$kernel/initramfs" ] || continue
    echo "fetching the kernel of Debian's $release into $cache/$kernel (about 100 MB)" >&2
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/making-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    fetch
    arrange
    make_initramfs
    rm -rf "${cache:?}/$kernel"
    mv "$work/done" "$cache/$kernel"
    rm -rf "$work"
    echo "  $version" >&2
done
