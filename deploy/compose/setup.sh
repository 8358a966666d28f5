#!/bin/sh
# Makes what compose.yaml needs: the folder `state`, with passwords, a key ring and Envoy's
# configuration, and the file `.env`. What exists is kept, except Envoy's configuration and `.env`.
#   ./setup.sh [IMAGE]     IMAGE defaults to the one that `make image` makes
set -eu
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }
die() { say "setup.sh: $*"; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' ../../Cargo.toml | head -n 1)
image=${1:-localhost/patgate:$version}
if [ -z "${ENGINE:-}" ]; then
    ENGINE=$(command -v docker || command -v podman) || die "neither docker nor podman is installed"
fi

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
# Writes standard input to a file that did not exist.
once() { if [ -e "$1" ]; then cat >/dev/null; else cat >"$1.new" && mv "$1.new" "$1"; fi; }
password() { random | once "state/passwords/$1"; }

# What others may read is what containers with a user of their own read; the folder `state` keeps
# other users of this machine away.
umask 077
mkdir -p state
cd state
umask 022
mkdir -p envoy postgres tls valkey
umask 077
mkdir -p keys operator owner passwords server web
cd ..

for name in postgres owner gateway operator web redis-serve redis-admin redis-web; do password "$name"; done
secret() { cat "state/passwords/$1"; }
url() { echo "postgres://$1:$(secret "$1")@postgres:5432/patgate?sslmode=disable"; }
url owner | once state/owner/postgres.url
url gateway | once state/server/postgres.url
url operator | once state/operator/postgres.url
url web | once state/web/postgres.url
secret redis-serve | once state/server/redis.password
secret redis-admin | once state/operator/redis.password
secret redis-web | once state/web/redis.password
if [ ! -s state/keys/keyring ]; then
    "$ENGINE" run --rm --network=none "$image" keyring new | once state/keys/keyring
    [ -s state/keys/keyring ] || { rm -f state/keys/keyring; die "$image made no key ring"; }
fi

umask 022
secret postgres | once state/postgres/password
once state/postgres/logins.sql <<SQL
-- The schema belongs to patgate_migrate, which ../bootstrap.sql has made. The login that migrates owns
-- the database, so that it can close it to other logins.
CREATE ROLE owner LOGIN PASSWORD '$(secret owner)' IN ROLE patgate_migrate;
ALTER DATABASE patgate OWNER TO owner;
CREATE ROLE gateway LOGIN PASSWORD '$(secret gateway)' IN ROLE patgate_serve;
CREATE ROLE operator LOGIN PASSWORD '$(secret operator)' IN ROLE patgate_admin;
CREATE ROLE web LOGIN PASSWORD '$(secret web)' IN ROLE patgate_web;
SQL
once state/valkey/valkey.conf <<CONF
save ""
appendonly no
maxmemory 256mb
maxmemory-policy allkeys-lru
user default off
user patgate-serve on >$(secret redis-serve) resetkeys ~patgate:* resetchannels -@all +mget +psetex
user patgate-admin on >$(secret redis-admin) resetkeys ~patgate:* resetchannels -@all +mget +del
user patgate-web on >$(secret redis-web) resetkeys ~patgate:* resetchannels -@all +del
CONF

# The shipped configuration, with the names of containers in place of this machine's address.
changed() {
    sed -e "$1" state/envoy/envoy.yaml.new >state/envoy/envoy.yaml.changed
    lines=$(diff state/envoy/envoy.yaml.new state/envoy/envoy.yaml.changed | grep -c '^>' || true)
    [ "$lines" = 1 ] || die "envoy/envoy.yaml has changed: '$1' changes $lines lines of it, not one"
    mv state/envoy/envoy.yaml.changed state/envoy/envoy.yaml.new
}
cp ../../envoy/envoy.yaml state/envoy/envoy.yaml.new
changed 's/^      type: STATIC$/      type: STRICT_DNS/'
changed 's/address: 127\.0\.0\.1, port_value: 9191/address: patgate, port_value: 9191/'
# compose.yaml publishes this port on the machine's own address only.
changed 's/address: 127\.0\.0\.1, port_value: 8080/address: 0.0.0.0, port_value: 8080/'
changed 's/address: 127\.0\.0\.1, port_value: 8001/address: model-acme, port_value: 8001/'
changed 's/address: 127\.0\.0\.1, port_value: 8002/address: model-beta, port_value: 8002/'
# Rewritten in place, because the container has the file mounted.
cat state/envoy/envoy.yaml.new >state/envoy/envoy.yaml
rm state/envoy/envoy.yaml.new

printf 'PATGATE_IMAGE=%s\nPATGATE_USER=%s:%s\n' "$image" "$(id -u)" "$(id -g)" >.env
if [ "$(id -u)" = 0 ]; then
    say "You are root, so patgate and Envoy will run as root in their containers, though without capabilities."
    say "Better: remove state and .env, and run this script as another user, who may use $ENGINE."
fi
say "The folder $(pwd)/state is ready. Keep a copy of it: it holds the key ring and all passwords."
