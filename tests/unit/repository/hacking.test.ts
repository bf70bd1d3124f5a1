/** docs/hacking.md: the changes that are made most often, each with the files that it touches. */
import { describe, expect, test } from 'bun:test';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dir, '../../..');
const page = readFileSync(join(root, 'docs/hacking.md'), 'utf8');

/** The part of the page under a heading of level 3. */
function section(heading: string): string {
  const found = page.split(/^### /m).find((part) => part.startsWith(`${heading}\n`));
  if (found === undefined) throw new Error(`docs/hacking.md does not say how to add ${heading}`);
  return found.split(/^## /m)[0] as string;
}

const filesOf = (text: string) => [...text.matchAll(/`((?:src|tests|docs|examples|ffi)\/[\w./-]+\.\w+)`/g)].map(([, path = '']) => path);

describe('what a change touches', () => {
  const changes: [heading: string, files: string[]][] = [
    ['An option', ['src/api/define.ts', 'src/config/schema.ts', 'docs/configuration.md']],
    ['A WebSocket option', ['src/api/websocket.ts', 'src/config/websocket-options.ts']],
    ['A counter of TypeScript', ['src/core/host-counters.ts']],
    ['A link between nodes', ['src/pubsub/link.ts', 'tests/contract/links.ts', 'examples/nats-link/nats-link.ts']],
    ['A frontend protocol', ['src/frontend/frontend.ts', 'src/worker/main.ts']],
  ];
  test.each(changes)('%s is a list of files that are there', (heading, files) => {
    const named = filesOf(section(heading));
    for (const file of files) expect([heading, named]).toEqual([heading, expect.arrayContaining([file])]);
    for (const file of named) expect([file, existsSync(join(root, file)) && statSync(join(root, file)).isFile()]).toEqual([file, true]);
  });

  test('a section that is not there is told of', () => {
    expect(() => section('A thing of no kind')).toThrow('does not say how to add A thing of no kind');
  });
});
