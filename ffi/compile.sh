#!/bin/sh
# Compiles the C core into one file:  compile.sh TARGET JOBS
# Several processes may do so at once: with flock(1) all but the first wait for it and use what it has made; without, each compiles
# for itself. The file appears whole or not at all. Only POSIX and what busybox has.
set -eu
target=$1
jobs=$2
source=$(dirname "$0")

# Which file stands there: a new one has another inode.
made() { stat -c %i "$target" 2>/dev/null || true; }

before=$(made)
if command -v flock >/dev/null; then
  exec 9>"$target.lock"
  flock 9
  [ "$(made)" = "$before" ] || exit 0
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/ringway-core.XXXXXX")
trap 'rm -rf "$work" "$target.$$"' EXIT
trap 'exit 1' HUP INT TERM

# Not every distribution has an archive of liburing. The others must be static: beside Bun, which has symbols of the same names.
libraries='-l:liburing.a -l:libssl.a -l:libcrypto.a -l:libz.a'
case $("${CC:-cc}" -print-file-name=liburing.a) in
  /*) ;;
  *) libraries='-luring -l:libssl.a -l:libcrypto.a -l:libz.a' ;;
esac

# WARN: warnings of a compiler that we do not know must not stop it. A make that has called us is none of ours.
unset MAKEFLAGS MAKELEVEL
make --silent -C "$source" -j "$jobs" BUILD="$work" WARN=-w LIBRARIES="$libraries" build 9>&-
cp "$work/libringway.so" "$target.$$"
chmod 755 "$target.$$"
mv -f "$target.$$" "$target"
