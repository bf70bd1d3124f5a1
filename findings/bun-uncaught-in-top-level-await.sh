#!/bin/sh
# One would expect: an exception that nobody catches, thrown in a timer or in a process.nextTick callback, ends the process with exit code 1, as
# Node does and as Bun does in any other program.
# What happens: while the main module still waits at a top-level await, Bun prints the error and goes on. A server whose main module ends in
# `for await (… of …)` or `await new Promise(…)` lives on in an unknown state, and what restarts it never hears of it.
# Seen with Bun 1.4.5 on Linux x86-64, 2026-11-29; Node 20 ends with 1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --no-audit --no-fund --silent bun@1.4.5
bun=./node_modules/.bin/bun

cat > ends.mjs <<'JS'
setTimeout(() => { throw new Error('nobody catches this'); }, 10);
setTimeout(() => { console.log('still alive'); process.exit(0); }, 500);
JS
cp ends.mjs waits.mjs
echo 'await new Promise(() => {});' >> waits.mjs

echo "Bun $("$bun" --version)"
code=0; "$bun" ends.mjs > out 2> err || code=$?
echo "without top-level await: exit code $code, $(grep -c 'nobody catches this' err) line(s) with the error, printed afterwards: $(cat out)"
[ "$code" = 1 ] && [ ! -s out ]
code=0; "$bun" waits.mjs > out 2> err || code=$?
echo "at a top-level await:    exit code $code, $(grep -c 'nobody catches this' err) line(s) with the error, printed afterwards: $(cat out)"
[ "$code" = 0 ] && grep -q 'still alive' out && grep -q 'nobody catches this' err
if command -v node > /dev/null; then
  code=0; node waits.mjs > out 2> err || code=$?
  echo "Node $(node --version), same file: exit code $code, printed afterwards: $(cat out)"
  [ "$code" = 1 ] && [ ! -s out ]
fi
