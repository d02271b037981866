#!/usr/bin/env bash
# Puts the programs that others wrote, and that the interop tests run, into a cache outside the checkout:
# the `bark` wallet and `barkd` daemon from their published crate, and a bitcoind from Debian's packages.
# Prints the environment to use them as `export NAME=path` lines. What is already there is not built again.
#
# A program named by BARK_EXEC, BARKD_EXEC, BITCOIND or BITCOIN_CLI is taken as it is. BARKD_CLIENTS names a
# directory with one directory per version of the published REST client, as pip --target makes them.
set -euo pipefail

BARK_VERSION=0.8.0
CLIENT_VERSIONS="0.1.4 0.8.0"
CACHE=${BARKD_PY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/barkd-py}
mkdir -p "$CACHE"

say() { echo "interop: $*" >&2; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi; }

need_debian_package() { # command package
    command -v "$1" >/dev/null && return 0
    say "installing $2"
    as_root apt-get update -qq >&2 && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >&2 ||
        { say "cannot find $1: install $2"; return 1; }
}

install_bark() { # root
    local root=$1
    [ -x "$root/bin/bark" ] && [ -x "$root/bin/barkd" ] && return 0
    command -v cargo >/dev/null || { say "cargo is missing: install Rust, or name a bark with BARK_EXEC"; return 1; }
    need_debian_package protoc protobuf-compiler
    say "building bark $BARK_VERSION (about 7 minutes on 2 cores, once)"
    CARGO_TARGET_DIR="$CACHE/target" cargo install bark-cli --version "$BARK_VERSION" --locked \
        --no-default-features --features tls-native-roots --root "$root" >"$CACHE/bark-build.log" 2>&1 ||
        { tail -n 40 "$CACHE/bark-build.log" >&2; return 1; }
    rm -rf "$CACHE/target"
}

# Upstream's generated REST client, as applications have it. Both versions have one import name.
install_clients() { # dir
    local dir=$1 version
    for version in $CLIENT_VERSIONS; do
        [ -d "$dir/$version/barkd_client" ] && continue
        say "fetching barkd-client $version"
        rm -rf "$dir/$version.new"
        "${VENV:-.venv}/bin/python" -m pip install --quiet --disable-pip-version-check \
            --target "$dir/$version.new" "barkd-client==$version" >&2
        mv "$dir/$version.new" "$dir/$version"
    done
}

# Debian stable has no bitcoind; sid's package runs here with sid's own C library beside it.
install_bitcoind() { # dir
    local dir=$1 uri options package
    [ -x "$dir/bin/bitcoind" ] && return 0
    command -v apt-get >/dev/null || { say "bitcoind is missing: install Bitcoin Core 29 or newer, or name it with BITCOIND"; return 1; }
    say "fetching bitcoind from Debian"
    mkdir -p "$dir"/{etc,lists/partial,cache/archives/partial,debs,root,bin}
    uri=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
    uri=${uri:-$(awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:/) { print $i; exit } }' /etc/apt/sources.list)}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri sid main" >"$dir/etc/sources.list"
    options=(-o "Dir::Etc::sourcelist=$dir/etc/sources.list" -o "Dir::Etc::sourceparts=/dev/null"
        -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o "APT::Sandbox::User=root")
    apt-get "${options[@]}" update >/dev/null
    (cd "$dir/debs" && apt-get "${options[@]}" download bitcoin-knots libevent-core-2.1-7t64 \
        libevent-extra-2.1-7t64 libevent-pthreads-2.1-7t64 libstdc++6 libgcc-s1 libzmq5 libsqlite3-0 libc6 libsodium26 \
        libpgm-5.3-0t64 libnorm1t64 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libcom-err2 libkrb5support0 libkeyutils1 \
        libbsd0 libmd0 libssl3t64 >/dev/null)
    for package in "$dir"/debs/*.deb; do dpkg -x "$package" "$dir/root"; done
    for name in bitcoind bitcoin-cli; do
        printf '#!/bin/sh\nexec %s/usr/lib64/ld-linux-x86-64.so.2 --library-path %s/usr/lib/x86_64-linux-gnu %s/usr/bin/%s "$@"\n' \
            "$dir/root" "$dir/root" "$dir/root" "$name" >"$dir/bin/$name"
        chmod +x "$dir/bin/$name"
    done
}

if [ -z "${BARK_EXEC:-}" ] || [ -z "${BARKD_EXEC:-}" ]; then
    install_bark "$CACHE/bark-$BARK_VERSION"
fi
if [ -z "${BARKD_CLIENTS:-}" ]; then
    BARKD_CLIENTS=$CACHE/clients
    mkdir -p "$BARKD_CLIENTS"
    install_clients "$BARKD_CLIENTS"
fi
if [ -z "${BITCOIND:-}" ]; then
    if command -v bitcoind >/dev/null; then
        BITCOIND=$(command -v bitcoind)
    else
        install_bitcoind "$CACHE/bitcoind"
        BITCOIND=$CACHE/bitcoind/bin/bitcoind
        BITCOIN_CLI=${BITCOIN_CLI:-$CACHE/bitcoind/bin/bitcoin-cli}
    fi
fi
echo "export BARK_EXEC=${BARK_EXEC:-$CACHE/bark-$BARK_VERSION/bin/bark}"
echo "export BARKD_EXEC=${BARKD_EXEC:-$CACHE/bark-$BARK_VERSION/bin/barkd}"
echo "export BARKD_CLIENTS=$BARKD_CLIENTS"
echo "export BITCOIND=$BITCOIND"
echo "export BITCOIN_CLI=${BITCOIN_CLI:-$(dirname "$BITCOIND")/bitcoin-cli}"
