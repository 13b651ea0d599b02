#!/usr/bin/env bash
# Mutation testing of offload.h; see --help. Up to an hour for the whole; it goes on where it was stopped.
cd "$(dirname "$0")/../.." || exit 2
command -v python3 >/dev/null || { echo "mutation: python3 is missing; Debian: apt-get install python3" >&2; exit 2; }
exec python3 tests/mutation/mutate.py "$@"
