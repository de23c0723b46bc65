#!/usr/bin/env bash
# Measures envfs beside other file systems, or Vault at several distances beside the local keyring. As root.
#   bench.sh                                  native, envfs and the peers that Debian has, on a tmpfs
#   bench.sh [flags] NAME...                  those named; -base DIR for another storage; -h explains
#   bench.sh vault [flags]                    the distance to Vault
# Measures bin/envfs (make build), or the program that ENVFS names.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$#" -gt 0 ] || set -- -install native envfs gocryptfs securefs encfs
go build -o bin/bench ./integration/bench
exec bin/bench "$@" # in place of the shell, so that signals reach it
