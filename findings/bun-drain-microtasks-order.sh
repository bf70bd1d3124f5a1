#!/bin/sh
# One would expect: drainMicrotasks() of bun:jsc runs what is queued in the order in which Bun itself does when a callback has returned, which is
# Node's: process.nextTick callbacks first, microtasks after them.
# What happens: it runs the microtasks first and the ticks after them. Who calls it between two callbacks of a library changes the order that
# the library sees.
# Seen with Bun 1.4.5 on Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true }' > package.json
npm install --no-audit --no-fund --silent bun@1.4.5
bun=./node_modules/.bin/bun

cat > order.mjs <<'JS'
import { drainMicrotasks } from 'bun:jsc';
const log = [];
function queue() {
  Promise.resolve().then(() => log.push('microtask'));
  process.nextTick(() => log.push('tick'));
}
function tell(what) {
  console.log(`${what}: ${log.splice(0).join(', ')}`);
}
// Both queues have been used before, so that nothing is being set up.
setTimeout(queue, 1);
setTimeout(() => { log.length = 0; queue(); }, 20);
setTimeout(() => {
  tell('when a callback has returned');
  queue();
  drainMicrotasks();
  tell('drainMicrotasks()');
}, 40);
JS

echo "Bun $("$bun" --version)"
"$bun" order.mjs | tee out
grep -qx 'when a callback has returned: tick, microtask' out
grep -qx 'drainMicrotasks(): microtask, tick' out
