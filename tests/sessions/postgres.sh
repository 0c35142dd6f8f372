#!/usr/bin/env bash
# A PostgreSQL server of one test: made anew, on loopback, gone when standard input closes. Prints "ready" when it
# answers. Usage: postgres.sh PORT [CERTIFICATE KEY]. User chartgate, password test-only, database postgres.
set -euo pipefail
port=${1:?usage: postgres.sh PORT [CERTIFICATE KEY]}
find_bin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }
if [ -z "$(find_bin)" ]; then
  [ "$(id -u)" = 0 ] || { echo "PostgreSQL is not installed" >&2; exit 3; }
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; } \
    >&2 || { echo "PostgreSQL cannot be installed" >&2; exit 3; }
fi
bin=$(find_bin)
home=$(mktemp -d /tmp/chartgate-postgres-XXXXXX)
trap 'rm -rf "$home"' EXIT
printf 'test-only\n' >"$home/password"
tls=()
if [ $# -ge 3 ]; then
  cp "$2" "$home/server.pem"
  cp "$3" "$home/server.key"
  chmod 600 "$home/server.key"
  tls=(-c ssl=on -c "ssl_cert_file=$home/server.pem" -c "ssl_key_file=$home/server.key")
fi
# The server refuses to run as root.
as=()
if [ "$(id -u)" = 0 ]; then
  chown -R postgres: "$home"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
cd "$home"
"${as[@]}" "$bin/initdb" -D "$home/data" -U chartgate -A scram-sha-256 --pwfile="$home/password" -N >/dev/null
"${as[@]}" "$bin/postgres" -D "$home/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
  "${tls[@]}" </dev/null >"$home/log" 2>&1 &
server=$!
for _ in $(seq 300); do
  if "$bin/pg_isready" -q -h 127.0.0.1 -p "$port"; then break; fi
  kill -0 "$server" 2>/dev/null || { cat "$home/log" >&2; exit 3; }
  sleep 0.1
done
echo ready
read -r _ || true
kill -INT "$server" 2>/dev/null || true
wait "$server" || true
