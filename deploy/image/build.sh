#!/bin/sh
# Builds the image of patgate with buildah, and writes to target/image:
#   patgate-VERSION-ARCH.tar    the image, as an archive of an OCI layout
#   sbom.cdx.json               its bill of materials, CycloneDX
#   digest                      the digest of its manifest
# The same sources, compilers and buildah give the same digest. `make image` calls this.
set -eu
cd "$(dirname "$0")/../.."

# cargo compares what it downloads with the registry's index; this says what the index must have said.
# The package has a Cargo.lock of its own, with the checksums of all others.
AUDITABLE=0.7.7
AUDITABLE_SHA256=ccdd489bc94d1338cd04389a842e00661300331ec915fb376b4810ef7d480b5d
OUT=$PWD/target/image
PYTHON=${PYTHON:-.venv/bin/python}

say() { printf '%s\n' "$*" >&2; }
die() { say "make image: $*"; exit 1; }
needs() { command -v "$1" >/dev/null || die "$1 is missing. Debian and Ubuntu: apt-get install $2"; }

[ "$(uname -s)" = Linux ] || die "the image can be built on Linux only"
needs buildah buildah
needs objcopy binutils
needs cc 'gcc libc6-dev'
bundle=$("$PYTHON" -m certifi) || die "certifi is missing from $PYTHON: run tools/install.sh image"

# What decides the digest, besides the sources.
umask 022
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
[ -n "${REVISION:-}" ] || [ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision-dirty
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

triple=$(rustc --print host-tuple)
case $triple in
    x86_64-unknown-linux-gnu) arch=amd64 ;;
    aarch64-unknown-linux-gnu) arch=arm64 ;;
    *) die "no image is built for $triple" ;;
esac

mkdir -p "$OUT"
auditable=$OUT/tools/cargo-auditable-$AUDITABLE
if [ ! -x "$auditable/bin/cargo-auditable" ]; then
    say "Installing cargo-auditable $AUDITABLE into $auditable"
    listed=$OUT/tools/listed
    mkdir -p "$listed/src"
    : >"$listed/src/lib.rs"
    printf '[package]\nname = "listed"\n[workspace]\n[dependencies]\ncargo-auditable = "=%s"\n' "$AUDITABLE" \
        >"$listed/Cargo.toml"
    cargo generate-lockfile --quiet --manifest-path "$listed/Cargo.toml"
    found=$(sed -n '/^name = "cargo-auditable"$/,/^$/s/^checksum = "\(.*\)"$/\1/p' "$listed/Cargo.lock")
    rm -rf "$listed"
    [ "$found" = "$AUDITABLE_SHA256" ] ||
        die "cargo-auditable $AUDITABLE of the registry has the checksum '$found', expected $AUDITABLE_SHA256"
    cargo install --quiet --locked --version "$AUDITABLE" --root "$auditable" \
        --target-dir "$OUT/build/tools" cargo-auditable
fi

# Static, and without the places where it was built. With --target, the flags do not concern build
# scripts and procedural macros, which cannot be static. A directory of its own keeps target/release.
separator=$(printf '\037')
flags=-Ctarget-feature=+crt-static
flags=$flags$separator--remap-path-prefix=$PWD=/src
flags=$flags$separator--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo
(
    unset RUSTFLAGS
    export CARGO_ENCODED_RUSTFLAGS="$flags" PATH="$auditable/bin:$PATH"
    # With the time of the commit, each commit would compile the C code of packages again; it has no date.
    SOURCE_DATE_EPOCH=0 cargo auditable build --release --locked --bin patgate --target "$triple" --target-dir "$OUT/build"
)
binary=$OUT/build/$triple/release/patgate
if readelf --program-headers "$binary" | grep -q INTERP || readelf --dynamic "$binary" | grep -q NEEDED; then
    die "$binary is not static"
fi

# Only what Containerfile copies.
context=$OUT/context
rm -rf "$context"
mkdir "$context"
cp "$binary" LICENSE "$context"
cp "$bundle" "$context/ca-certificates.crt"
"$PYTHON" tools/components.py "$binary" "$OUT" \
    "rust-std=$(rustc --version | cut -d ' ' -f 2)" \
    "glibc=$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)" \
    "ca-certificates=$("$PYTHON" -c 'import certifi; print(certifi.__version__)')"
mv "$OUT/THIRD-PARTY.txt" "$context"

# Without a daemon, mounts and user namespaces. Its own store leaves nothing elsewhere.
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
ours() { command=$1 && shift && buildah --root "$OUT/store" --runroot "$OUT/run" "$command" "$@"; }
rm -rf "$OUT/layout" "$OUT"/patgate-*.tar
ours build --quiet --format oci --no-cache --identity-label=false --platform "linux/$arch" \
    --timestamp "$SOURCE_DATE_EPOCH" --iidfile "$OUT/id" \
    --label "org.opencontainers.image.version=$version" \
    --label "org.opencontainers.image.revision=$revision" \
    --label "org.opencontainers.image.created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
    ${SOURCE:+--label "org.opencontainers.image.source=$SOURCE"} \
    --file deploy/image/Containerfile "$context" >/dev/null
ours push --quiet --digestfile "$OUT/digest" "$(cat "$OUT/id")" "oci:$OUT/layout:localhost/patgate:$version"
rm -rf "$OUT/store" "$OUT/run" "$OUT/id"

# `docker load` reads this file unless it stores images with containerd.
"$PYTHON" - "$OUT/layout" "localhost/patgate:$version" <<'END'
import json, pathlib, sys
layout, name = pathlib.Path(sys.argv[1]), sys.argv[2]
blob = lambda described: "blobs/" + described["digest"].replace(":", "/")
[listed] = json.loads((layout / "index.json").read_text())["manifests"]
manifest = json.loads((layout / blob(listed)).read_text())
image = {"Config": blob(manifest["config"]), "RepoTags": [name]}
image["Layers"] = [blob(layer) for layer in manifest["layers"]]
(layout / "manifest.json").write_text(json.dumps([image]))
END

# buildah's own archive has the times and the order of the moment.
archive=$OUT/patgate-$version-$arch.tar
tar --create --file "$archive" --directory "$OUT/layout" --sort=name --format=ustar \
    --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    blobs index.json manifest.json oci-layout
say
say "image    $archive"
say "digest   $(cat "$OUT/digest")"
say "size     $(($(stat -c %s "$archive") / 1024)) KiB compressed, the binary $(($(stat -c %s "$binary") / 1024)) KiB"
say "bill     $OUT/sbom.cdx.json"
