#!/usr/bin/env bash
# Installs what the tests drive, where it may, and says plainly what will be skipped where it may not.
#   setup.sh            install, then report
#   setup.sh --strict   print 1 where everything can be had (then what is missing fails its tests), else nothing
set -euo pipefail

# program:Debian package
needs=(fusermount3:fuse3 git:git sqlite3:sqlite3 rsync:rsync tar:tar setfattr:attr setfacl:acl python3:python3
       gcc:gcc make:make patch:patch unshare:util-linux strace:strace fio:fio ip:iproute2 restic:restic borg:borgbackup)

missing() {
    for need in "${needs[@]}"; do
        command -v "${need%%:*}" >/dev/null 2>&1 || echo "${need##*:}"
    done | sort -u
}

mayInstall() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

if [ "${1:-}" = --strict ]; then
    if [ -e /dev/fuse ] && [ "$(id -u)" = 0 ] && { mayInstall || [ -z "$(missing)" ]; }; then echo 1; fi
    exit 0
fi

packages=$(missing)
if [ -n "$packages" ] && mayInstall; then
    echo "installing what the tests drive:" $packages
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages; } >/dev/null || true
    packages=$(missing)
fi
if [ -n "$packages" ]; then
    if mayInstall; then fate=fail; else fate='are skipped'; fi
    echo "not installed, so the tests that drive them $fate:" $packages
fi
[ -e /dev/fuse ] || echo "/dev/fuse is missing, so every test that mounts is skipped (modprobe fuse)"
[ "$(id -u)" = 0 ] || echo "not root, so the tests that need several users, device nodes or a small tmpfs are skipped"
