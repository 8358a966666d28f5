#!/bin/sh
# Builds the patgate from before the latest change of the schema, for `make upgrade-test`, from the
# history of this repository. tests/integration/upgrades/previous names the commit.
#   tools/previous.sh         builds it as target/previous/patgate-COMMIT, unless it is there
set -eu
cd "$(dirname "$0")/.."

die() { printf '%s\n' "previous.sh: $*" >&2; exit 1; }

named=tests/integration/upgrades/previous
commit=$(cat "$named")
if [ ${#commit} != 40 ] || [ -n "$(printf %s "$commit" | tr -d 0-9a-f)" ]; then
    die "$named must hold one full commit id, and nothing else"
fi
program=target/previous/patgate-$commit
[ ! -x "$program" ] || exit 0

[ -z "$(git rev-parse --show-prefix || echo none)" ] ||
    die "this folder is not a clone of patgate's repository. The test builds an earlier commit
($commit), so it needs the history: clone the repository with git."
git cat-file -e "$commit^{commit}" 2>/dev/null || {
    [ "$(git rev-parse --is-shallow-repository)" = true ] &&
        die "this clone is shallow and lacks the commit $commit. Fetch the history:
git fetch --unshallow (in GitHub Actions: fetch-depth: 0 for actions/checkout)"
    die "the commit $commit, which $named names, is not in this repository"
}

sources=target/previous/source-$commit
echo "Building the previous patgate, $commit" >&2
rm -rf "$sources"
mkdir -p "$sources"
git archive "$commit" | tar -x -C "$sources"
# In the same target directory, it shares the dependencies that are compiled already. Cargo tells two
# copies of a package apart by the version only, and would take parts of the one for the other, so
# the earlier one gets another version. Under another name, its program does not replace
# target/debug/patgate. There are no examples, but with that option, dependencies have the features that
# tests need, as those that `cargo test` compiles.
for manifest in "$sources/Cargo.toml" "$sources"/crates/*/Cargo.toml; do
    sed -i.bak 's/^version = "[^"]*/&-previous/' "$manifest"
done
awk 'BEGIN { RS = ""; ORS = "\n\n" } !/\nsource = / { sub(/\nversion = "[^"]*/, "&-previous") } 1' \
    "$sources/Cargo.lock" >"$sources/Cargo.lock.new"
mv "$sources/Cargo.lock.new" "$sources/Cargo.lock"
printf '\n[[bin]]\nname = "patgate-previous"\npath = "src/main.rs"\n' >>"$sources/Cargo.toml"
cargo build --locked --bin patgate-previous --examples --manifest-path "$sources/Cargo.toml" --target-dir target
# In one step, so that an interrupted build leaves no program.
mv target/debug/patgate-previous "$program"
rm -rf "$sources"
