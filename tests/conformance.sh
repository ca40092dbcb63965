#!/usr/bin/env bash
# Runs the conformance kit against the release binary with one and with two shards, each with a new
# Postgres (CONFORMANCE_POSTGRES: system, or newest for the npm package's); with two shards the tenants live
# in that Postgres too, as DB_HOST makes them. The kit is copied because it may be read-only. Arguments go
# to its runner: tests/conformance.sh --only 'presence-*'
# The logs of server and Postgres stay in tests/artefacts/.
set -euo pipefail
cd "$(dirname "$0")/.."

kit=${CONFORMANCE_KIT:-../shared/conformance}
binary=${RINGCAST_BIN:-target/release/ringcast}
secret=conformance-client-secret-with-at-least-32-characters
api_secret=conformance-api-secret-with-at-least-32-characters
metrics_secret=conformance-metrics-secret-with-at-least-32-characters
work=$(mktemp -d)
server=
postgres=

stop_server() {
  [ -n "$server" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" || true
  server=
}
stop_postgres() {
  [ -n "$postgres" ] || return 0
  kill "$postgres" 2>/dev/null || true
  wait "$postgres" || true
  postgres=
}
trap 'stop_server; stop_postgres; rm -rf "$work"' EXIT

# Argument: number of shards. Sets postgres_port.
start_postgres() {
  local log="tests/artefacts/conformance-$1-postgres.log" said="$work/postgres-port-$1"
  # Here, because the shell of the background job may create it only after it has been looked at.
  : >"$said"
  POSTGRES_LOG="$log" node tests/postgres.mjs "${CONFORMANCE_POSTGRES:-system}" >"$said" &
  postgres=$!
  for _ in $(seq 600); do
    postgres_port=$(cat "$said")
    [ -n "$postgres_port" ] && return 0
    kill -0 "$postgres" 2>/dev/null || break
    sleep 0.1
  done
  echo "Postgres did not start" >&2
  return 1
}

# Arguments: number of shards, port.
start_server() {
  local registry=()
  if [ "$1" -gt 1 ]; then
    registry=(DB_HOST=127.0.0.1 DB_PORT="$postgres_port" DB_USER=supabase_admin DB_PASSWORD=postgres DB_NAME=postgres
      DB_ENC_KEY=conformance-key1 DB_AFTER_CONNECT_QUERY='SET search_path TO _realtime')
  fi
  env "${registry[@]}" REGION=us-east-1 PORT="$2" RINGCAST_BIND=127.0.0.1 RINGCAST_SHARDS="$1" RINGCAST_SPREAD=all \
    RINGCAST_STATE_DIR="$work/state-$1" RINGCAST_DRAIN_TIMEOUT_MS=2000 \
    CONNECT_ERROR_BACKOFF_MS=0 CHANNEL_ERROR_BACKOFF_MS=0 \
    API_JWT_SECRET="$api_secret" METRICS_JWT_SECRET="$metrics_secret" \
    "$binary" serve >"tests/artefacts/conformance-$1.log" 2>&1 &
  server=$!
  for _ in $(seq 100); do
    kill -0 "$server" 2>/dev/null || break
    (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return 0
    sleep 0.1
  done
  echo "the server did not start:" >&2
  cat "tests/artefacts/conformance-$1.log" >&2
  return 1
}

free_port() {
  node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close() })'
}

mkdir -p tests/artefacts
cp -r --no-preserve=mode "$kit" "$work/kit"
(cd "$work/kit" && npm ci --no-audit --no-fund --loglevel=error >/dev/null)

failed=0
for shards in 1 2; do
  echo "== conformance, $shards shard(s)"
  port=$(free_port)
  start_postgres "$shards"
  start_server "$shards" "$port"
  node "$work/kit/run.mjs" --db "postgres://supabase_admin:postgres@127.0.0.1:$postgres_port/postgres" --bootstrap \
    --url "http://127.0.0.1:$port" --secret "$secret" \
    --api-secret "$api_secret" --metrics-secret "$metrics_secret" "$@" || failed=1
  stop_server
  stop_postgres
done
exit "$failed"
