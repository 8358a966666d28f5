#!/bin/sh
# Starts Postgres with an empty data folder. Only clients on the socket of its own container need no
# password: that is the administrator's psql.
set -eu
initdb --pgdata=/data/postgres --username=postgres --encoding=UTF8 --no-locale --no-sync \
    --auth-local=trust --auth-host=scram-sha-256 >/data/initdb.log
echo 'host all all all scram-sha-256' >>/data/postgres/pg_hba.conf
# The data lives as long as the pod.
exec postgres -D /data/postgres -c listen_addresses='*' -c unix_socket_directories=/data \
    -c max_connections=200 -c fsync=off -c full_page_writes=off
