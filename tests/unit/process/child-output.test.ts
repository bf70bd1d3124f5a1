/** What a child writes is read whole, also when the machine is busy and while much else is read. */
import { expect, test } from 'bun:test';
import { closeSync, readdirSync } from 'node:fs';
import { native } from '../../../ffi/bindings.ts';
import { openChildOutput } from '../../../src/process/child-output.ts';

const textOf = async (bytes: ReadableStream<Uint8Array>) => new Response(bytes).text();

test('what a child writes arrives whole and in order, and ends when the last process has closed it', async () => {
  const output = openChildOutput(native);
  const child = Bun.spawn(['sh', '-c', 'i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; (sleep 0.3; echo last) &'], {
    stdio: ['ignore', output.childFd, 'ignore'],
  });
  output.handedOver();
  const text = await textOf(output.bytes);
  expect(await child.exited).toBe(0);
  expect(text).toBe(`${Array.from({ length: 2000 }, (_, at) => `line ${at}`).join('\n')}\nlast\n`);
});

test('the child may write as much as it likes before it is read', async () => {
  const output = openChildOutput(native);
  const child = Bun.spawn(['head', '-c', '3000000', '/dev/zero'], { stdio: ['ignore', output.childFd, 'ignore'] });
  output.handedOver();
  expect((await new Response(output.bytes).arrayBuffer()).byteLength).toBe(3_000_000);
  expect(await child.exited).toBe(0);
});

test('a child that cannot be started ends it, and no descriptor is left', async () => {
  const open = () => readdirSync('/proc/self/fd').length;
  await textOf(unused());
  const before = open();
  for (let count = 0; count < 20; count++) expect(await textOf(unused())).toBe('');
  expect(open()).toBeLessThanOrEqual(before);
});

function unused(): ReadableStream<Uint8Array> {
  const output = openChildOutput({ ...native, fdClose: closeSync });
  output.handedOver();
  return output.bytes;
}
