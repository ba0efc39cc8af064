#!/usr/bin/env bash
# Runs a command with a PostgreSQL server of its own: with-postgres.sh COMMAND…
# The server listens on a free port of 127.0.0.1, keeps its data in a folder that goes with it, and is named to the command by
# TIDEMILL_TEST_POSTGRES=postgres://postgres@127.0.0.1:PORT. It also takes encrypted connections, as `localhost`, and
# TIDEMILL_TEST_POSTGRES_TLS="PORT CA" names the authority that signed its certificate; CA.other is one that did not.
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
for authority in ca.pem ca.pem.other; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=test $authority" \
        -keyout "$folder/$authority.key" -out "$folder/$authority" 2>/dev/null
done
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=localhost" \
    -keyout "$folder/server.key" -out "$folder/server.csr" 2>/dev/null
openssl x509 -req -in "$folder/server.csr" -days 2 -CA "$folder/ca.pem" -CAkey "$folder/ca.pem.key" -CAcreateserial \
    -extfile <(echo "subjectAltName=DNS:localhost") -out "$folder/server.crt" 2>/dev/null
chmod 600 "$folder/server.key"
[ "$(id -u)" != 0 ] || chown postgres "$folder/server.key"
# Others only read what they are to trust.
chmod 755 "$folder"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w start \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='' -c max_connections=400 \
        -c ssl=on -c ssl_cert_file=$folder/server.crt -c ssl_key_file=$folder/server.key" >/dev/null ||
    { cat "$folder/log" >&2; exit 1; }
cd "$OLDPWD"
export TIDEMILL_TEST_POSTGRES="postgres://postgres@127.0.0.1:$port"
export TIDEMILL_TEST_POSTGRES_TLS="$port $folder/ca.pem"
"$@"
