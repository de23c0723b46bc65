#!/usr/bin/env bash
# Shows envfs at work on a real source tree, and compares every byte. Leaves nothing behind.
#   demo.sh ENVFS
set -euo pipefail

envfs=$(realpath "$1")
work=$(mktemp -d)
data=$work/data clear=$work/clear pass=$work/passphrase
trap 'mountpoint -q "$clear" && "$envfs" umount "$clear"; rm -rf "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }
run() { local shown="${*//"$work"\//}"; printf '$ %s\n' "${shown//"$envfs"/envfs}"; "$@" | sed "s|$work/||g"; }

mkdir "$clear"
head -c 24 /dev/urandom | base64 > "$pass"
chmod 600 "$pass"
tree=$(go env GOROOT)/src/cmd

say "a volume with the embedded keyring"
run "$envfs" init --passphrase-file "$pass" "$data"
run "$envfs" mount --passphrase-file "$pass" "$data" "$clear"

say "a real source tree goes in: $(find "$tree" -type f | wc -l) files, $(du -sh "$tree" | cut -f1)"
run cp -a "$tree" "$clear/"
run diff -r "$tree" "$clear/cmd" && echo "every byte the same"

say "what a backup program sees"
first=$(find "$data" -type f ! -name 'envfs.*' -size +8k -print -quit)
run ls -l "$(dirname "$first")" | sed -n 1,5p
if grep -rqs 'package main' "$data"; then echo "plaintext found in the ciphertext"; exit 1; fi
echo "no 'package main' anywhere in the ciphertext"

say "unmounted, every file is sealed; one header:"
run "$envfs" umount "$clear"
run "$envfs" info --passphrase-file "$pass" "$first"

say "mounted again and compared again"
run "$envfs" mount --passphrase-file "$pass" "$data" "$clear"
run diff -r "$tree" "$clear/cmd" && echo "every byte the same"
run "$envfs" umount "$clear"

say "done; $work is removed"
