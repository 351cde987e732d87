#!/bin/sh
# Takes down what stands on a folder when its input ends, that is, when whoever started it is done or gone, however it
# ended: processes, mounts, loop devices, servers, the folder itself.
#
#   take-down.sh DIR    lines of input: "first PID" (uses the mounts, killed first), "last PID" (serves them, killed last)
#
# What it cannot take down it names on stderr, and its exit code is 1.
trap '' INT TERM HUP PIPE
PATH=$PATH:/usr/sbin:/sbin
dir=${1:?the folder}
first='' last=''
while read -r when pid; do
  case $when in
    first) first="$first $pid" ;;
    last) last="$last $pid" ;;
  esac
done

ours() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF -- "$dir/"; }

# A number may belong to another process by now: only who names the folder is ours.
end() {
  for pid in "$@"; do
    ours "$pid" && kill -9 "$pid" 2>/dev/null
  done
  for pid in "$@"; do
    tries=0
    while ours "$pid" && [ "$tries" -lt 100 ]; do
      sleep 0.05
      tries=$((tries + 1))
    done
  done
}

# Mounts below the folder, the innermost first; $1: of FUSE, or other.
mounts() {
  awk -v below="$dir/" -v fuse="$1" 'index($5, below) == 1 {
    kind = 0
    for (i = 7; i < NF; i++) if ($i == "-") kind = ($(i + 1) ~ /^fuse/)
    if (kind == (fuse == "fuse")) print $5
  }' /proc/self/mountinfo | sort -r
}

unmount() {
  for mount in $(mounts "$1"); do
    umount "$mount" 2>/dev/null || { sleep 0.2 && umount "$mount" 2>/dev/null; } || umount -l "$mount"
  done
}

loops() { losetup -l -n -O NAME,BACK-FILE | awk -v below="$dir/" 'index($2, below) == 1 { print $1 }'; }

# The lists are words on purpose.
# shellcheck disable=SC2086
end $first
unmount other
for loop in $(loops); do losetup -d "$loop"; done
unmount fuse
# shellcheck disable=SC2086
end $last

left="$(mounts other) $(mounts fuse) $(loops)"
for pid in $first $last; do ours "$pid" && left="$left process $pid"; done
case $left in
  *[![:space:]]*)
    echo "take-down.sh: still there: $left" >&2
    exit 1
    ;;
esac
[ -n "$ATOLL_TEST_KEEP" ] || rm -rf "$dir"
