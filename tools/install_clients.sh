#!/bin/sh
# Installs the clients that the tests drive, each into its own environment, .clients/<name>.
#   tools/install_clients.sh python    those that need only Python
#   tools/install_clients.sh           all of them; Node also comes as a wheel
# A run that finds everything in place uses no network.
#
# The locks are made by:
#   .clients/uv/bin/uv pip compile --universal --generate-hashes --python-version 3.11 --no-annotate \
#     tests/clients/locks/NAME.in -o tests/clients/locks/NAME.txt
#   npm install --package-lock-only --ignore-scripts      in tests/clients/npm/NAME
set -eu
cd "$(dirname "$0")/.."

# uv and npm also trust a company's own authority that the system knows.
export UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true NODE_USE_SYSTEM_CA=1

sums() { cat "$@" | cksum; }
installed() { home=$1 && shift && [ "$(cat "$home/installed" 2>/dev/null)" = "$(sums "$@")" ]; }
# Retries once, because a download may be interrupted.
twice() { "$@" || { printf 'Once more: %s\n' "$*" >&2 && "$@"; }; }

# uv installs an environment in seconds; pip takes a minute.
uv_itself() {
    home=.clients/uv lock=tests/clients/locks/uv.txt
    installed "$home" "$lock" && return
    printf 'Installing %s into %s\n' "$lock" "$home" >&2
    .venv/bin/python -m venv --clear --without-pip "$home"
    twice .venv/bin/python -m pip --python "$home/bin/python" install --quiet --no-input \
        --disable-pip-version-check --only-binary=:all: --require-hashes -r "$lock"
    sums "$lock" >"$home/installed"
}

python_client() {
    home=.clients/$1 lock=tests/clients/locks/$1.txt
    installed "$home" "$lock" && return
    printf 'Installing %s into %s\n' "$lock" "$home" >&2
    .clients/uv/bin/uv venv --quiet --no-config --clear --python .venv/bin/python "$home"
    twice .clients/uv/bin/uv pip install --quiet --no-config --python "$home/bin/python" \
        --require-hashes --only-binary :all: -r "$lock"
    sums "$lock" >"$home/installed"
}

node_client() {
    home=.clients/$1-node locks=tests/clients/npm/$1
    installed "$home" "$locks"/package*.json && return
    printf 'Installing %s into %s\n' "$locks" "$home" >&2
    rm -rf "$home" && mkdir -p "$home" && cp "$locks"/package*.json "$home"
    PATH=$PWD/.clients/node/bin:$PATH twice npm ci --prefix "$home" --ignore-scripts \
        --no-audit --no-fund --loglevel error >&2
    # Node looks for packages beside the path by which a script was started.
    ln -s ../../tests/clients/calls "$home/calls"
    sums "$locks"/package*.json >"$home/installed"
}

uv_itself
for client in openai langchain litellm llm ollama anthropic schemathesis; do
    python_client "$client"
done
[ "${1-}" = python ] && exit
python_client node
for client in openai ai-sdk ollama anthropic browser oidc pages; do
    node_client "$client"
done
