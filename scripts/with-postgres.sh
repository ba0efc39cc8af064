#!/usr/bin/env bash
# Runs a command with a PostgreSQL server of its own: with-postgres.sh COMMAND…
# The server listens on a free port of 127.0.0.1, keeps its data in a folder that goes with it, and is named to the command by
# TIDEMILL_TEST_POSTGRES=postgres://postgres@127.0.0.1:PORT.
set -euo pipefail

if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        { echo "error: PostgreSQL's server is missing: install it (Debian's package is \`postgresql\`)" >&2; exit 1; }
    echo "installing postgresql" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends postgresql >&2 ||
        { echo "error: apt-get install postgresql failed" >&2; exit 1; }
fi
bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)")

folder=$(mktemp -d)
# The server refuses to run as root.
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
[ "$(id -u)" != 0 ] || chown postgres "$folder"
finish() {
    as "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT

cd "$folder"
as "$bin/initdb" -D "$folder/data" --username=postgres --auth=trust --no-sync >/dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w start \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='' -c max_connections=400" >/dev/null ||
    { cat "$folder/log" >&2; exit 1; }
cd "$OLDPWD"
export TIDEMILL_TEST_POSTGRES="postgres://postgres@127.0.0.1:$port"
"$@"
