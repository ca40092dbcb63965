#!/usr/bin/env bash
# Prepares a fresh clone for `make test`: Debian packages that are missing (only as root), and the
# npm packages of tests/package-lock.json. Does nothing when everything is there.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
for need in cc:gcc make:make node:nodejs npm:npm; do
  command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "please install: ${missing[*]}" >&2
    exit 1
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
command -v cargo >/dev/null || { echo "please install Rust (https://rustup.rs)" >&2; exit 1; }

# npm writes the first file at the end of a successful install. The current client asks for Node 22
# only because of its built-in WebSocket, which the tests replace: hence no warnings.
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  npm ci --no-audit --no-fund --loglevel=error
fi
