import { describe, expect, test } from 'bun:test';
import { Output, relay } from '../../src/output.ts';

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** A descriptor whose writes end when the test says so. */
function slowDescriptor() {
  const written: string[] = [];
  const ends: (() => void)[] = [];
  let failure: string | undefined;
  const write = (_fd: number, bytes: Uint8Array, offset: number, length: number, done: (error: unknown, count: number) => void) => {
    const part = text(bytes.subarray(offset, offset + length));
    const end = () => {
      if (failure === undefined) written.push(part);
      done(failure === undefined ? null : Object.assign(new Error(failure), { code: failure }), failure === undefined ? length : 0);
    };
    ends.push(end);
  };
  return {
    written,
    write,
    pending: () => ends.length,
    end: () => ends.shift()?.(),
    fail(code: string | undefined) {
      failure = code;
    },
  };
}

describe('output', () => {
  test('lines written together leave together, and later ones after the write that is under way', async () => {
    const to = slowDescriptor();
    const output = new Output(1, { write: to.write });
    output.write('a\n');
    output.write('b\n');
    await Promise.resolve();
    output.write('c\n');
    output.write(new TextEncoder().encode('d\n'));
    expect(to.pending()).toBe(1);
    to.end();
    to.end();
    expect(to.written).toEqual(['a\nb\n', 'c\nd\n']);
    await output.settled(10_000);
  });

  test('while nobody reads, what waits is bounded; the rest is dropped, counted and told once', async () => {
    const to = slowDescriptor();
    const losses: number[] = [];
    const output = new Output(1, {
      write: to.write,
      waitingBytesMax: 100,
      onLoss: (lines) => losses.push(lines),
      lossLine: (lines) => `${lines} lost\n`,
    });
    const line = `${'x'.repeat(9)}\n`;
    output.write(line);
    await Promise.resolve();
    for (let count = 0; count < 1000; count++) output.write(line);
    expect(output.lost).toBe(990);
    expect(losses).toHaveLength(990);
    to.end();
    to.end();
    output.write('again\n');
    await Promise.resolve();
    to.end();
    expect(to.written.join('')).toBe(`${line.repeat(11)}990 lost\nagain\n`);
  });

  test('a write that fails costs its lines; the next is tried later, and then the loss is told with its reason', async () => {
    const to = slowDescriptor();
    const output = new Output(1, { write: to.write, lossLine: (lines, reason) => `${lines} lost: ${reason}\n` });
    to.fail('ENOSPC');
    output.write('a\nb\n', 2);
    await Promise.resolve();
    to.end();
    expect(output.lost).toBe(2);
    output.write('c\n');
    await Promise.resolve();
    expect(to.pending()).toBe(0);
    to.fail(undefined);
    while (to.pending() === 0) await Bun.sleep(10);
    to.end();
    expect(to.written).toEqual(['c\n2 lost: ENOSPC\n']);
  });

  test('a descriptor that is non-blocking and full is tried again, and nothing is lost', async () => {
    const to = slowDescriptor();
    const output = new Output(1, { write: to.write });
    to.fail('EAGAIN');
    output.write('a\n');
    await Promise.resolve();
    to.end();
    to.fail(undefined);
    while (to.pending() === 0) await Bun.sleep(1);
    to.end();
    expect(to.written).toEqual(['a\n']);
    expect(output.lost).toBe(0);
  });
});

describe('output at the end of a process', () => {
  const run = async (program: string) => {
    const child = Bun.spawn({ cmd: [process.execPath, '-e', program], cwd: import.meta.dir, stdout: 'pipe', stderr: 'inherit' });
    return { text: await child.stdout.text(), code: await child.exited };
  };

  test('what was written right before process.exit is written', async () => {
    const program = `const { outputTo } = await import('../../src/output.ts'); outputTo(1).write('last words\\n'); process.exit(3);`;
    expect(await run(program)).toEqual({ text: 'last words\n', code: 3 });
  });

  test('a pipe that nobody reads does not keep the process from exiting', async () => {
    const program = `
      const { outputTo, outputsSettled } = await import('../../src/output.ts');
      for (let count = 0; count < 9; count++) { outputTo(1).write('x'.repeat(400_000)); await Bun.sleep(30); }
      await outputsSettled(200);
      outputTo(1).write('never');
      process.exit(3);`;
    const child = Bun.spawn({ cmd: [process.execPath, '-e', program], cwd: import.meta.dir, stdout: 'pipe', stderr: 'inherit' });
    expect(await child.exited).toBe(3);
  });
});

describe('what another process writes', () => {
  test('is passed on in whole lines, and its rest when it ends', async () => {
    const passed: string[] = [];
    const output = new Output(1, {
      write: (_fd, bytes, _offset, length, done) => {
        passed.push(text(bytes));
        done(null, length);
      },
    });
    const encoder = new TextEncoder();
    const parts = ['one\ntw', 'o\n', 'thr', 'ee', '\nfour'];
    const stream = new ReadableStream<Uint8Array>({
      async pull(controller) {
        await Bun.sleep(0);
        const part = parts.shift();
        if (part === undefined) controller.close();
        else controller.enqueue(encoder.encode(part));
      },
    });
    await relay(stream, output);
    await output.settled(10_000);
    expect(passed).toEqual(['one\n', 'two\n', 'three\n', 'four']);
  });

  test('is passed on in parts when it writes without lines', async () => {
    let bytesMax = 0;
    let bytes = 0;
    const output = new Output(1, {
      write: (_fd, part, _offset, length, done) => {
        bytesMax = Math.max(bytesMax, part.byteLength);
        bytes += length;
        done(null, length);
      },
    });
    let left = 100;
    const stream = new ReadableStream<Uint8Array>({
      async pull(controller) {
        await Bun.sleep(0);
        if (left-- === 0) controller.close();
        else controller.enqueue(new Uint8Array(10_000).fill(0x78));
      },
    });
    await relay(stream, output);
    await output.settled(10_000);
    expect(bytes).toBe(1_000_000);
    expect(bytesMax).toBeLessThan(100_000);
  });
});
