#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# To be sourced: what it takes to build for another kind of machine on this one. A cross
# compiler is installed; headers and libraries of the other machine are fetched with package
# lists of their own and unpacked into a folder, so that no package of this machine is
# touched.
#
#   foreign_set ARCHITECTURE TRIPLET   Debian's name and the compiler's: i386 i686-linux-gnu
#   foreign_install                    the cross compiler, and the packages in also_here
#   foreign_root                       libraries into $root: what is needed, and also_there
#   foreign_build                      the program into $build/objects (configure_with,
#                                      build_with: how)
set -eu -o pipefail
also_here=() also_there=() configure_with=() build_with=()
source_tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

foreign_set()
{
    arch=$1
    triplet=$2
    build=$source_tree/build-$arch
    root=$build/root
    cc=$build/cc
    if [ -e "$source_tree/config.status" ]; then
        echo "$0: this source tree is configured itself: run 'make distclean' first" >&2
        exit 2
    fi
}

foreign_install()
{
    bash "$source_tree/scripts/setup" --packages-only --also "gcc-$triplet" \
        ${also_here[@]+"${also_here[@]}"}
}

# apt-get, as on a machine of that kind on which nothing is installed.
foreign_apt()
{
    apt-get -qq -o Dir::State="$build/apt" -o Dir::State::status="$build/apt/status" \
        -o Dir::Cache="$build/apt/cache" -o APT::Architecture="$arch" \
        -o APT::Architectures="$arch" -o APT::Sandbox::User= "$@"
}

foreign_root()
{
    local package link to
    [ ! -e "$root/complete" ] || return 0
    rm -rf "$root" "$build/apt"
    mkdir -p "$root" "$build/apt/lists/partial" "$build/apt/cache/archives/partial"
    : >"$build/apt/status"
    # A source that has nothing for that machine is no reason to stop: what is missing will be.
    foreign_apt update || true
    foreign_apt install --download-only --no-install-recommends -y libc6-dev zlib1g-dev \
        libzstd-dev libgcrypt20-dev libjansson-dev ${also_there[@]+"${also_there[@]}"}
    for package in "$build"/apt/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$root"
    done
    find "$root" -type l -lname '/*' -printf '%p %l\n' | while read -r link to; do
        ln -sfnr "$root$to" "$link"
    done
    : >"$root/complete"
}

foreign_build()
{
    local places=$root/usr/lib/$arch-linux-gnu/pkgconfig:$root/usr/share/pkgconfig
    [ -e "$source_tree/configure" ] || (cd "$source_tree" && autoreconf -fi)
    printf '#!/bin/sh\nexec %s-gcc --sysroot=%s "$@"\n' "$triplet" "$root" >"$cc"
    chmod +x "$cc"
    mkdir -p "$build/objects"
    cd "$build/objects"
    [ -e config.status ] || PKG_CONFIG_LIBDIR=$places PKG_CONFIG_SYSROOT_DIR=$root \
        "$source_tree/configure" --quiet --host="$triplet" CC="$cc" \
        ${configure_with[@]+"${configure_with[@]}"}
    make -j "$(nproc)" ${build_with[@]+"${build_with[@]}"}
}
