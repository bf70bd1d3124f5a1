import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { mkdtempSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TlsSettings } from '../../../src/config/tls.ts';
import { createLog } from '../../../src/log.ts';
import { type CertificateMistake, CertificateReloads } from '../../../src/supervisor/certificates.ts';

let folder: string;
let told: (readonly number[])[];
let lines: string[];
let judged: number;
let mistakes: CertificateMistake[];
let reloads: CertificateReloads | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-reloads-'));
  [told, lines, judged, mistakes, reloads] = [[], [], 0, [], undefined];
});
afterEach(() => {
  reloads?.stop();
  rmSync(folder, { recursive: true });
});

function settings(name: string, reloadInterval: number): TlsSettings {
  const path = (ending: string) => join(folder, `${name}.${ending}`);
  for (const ending of ['pem', 'key', 'named', 'also', 'crl', 'ocsp']) writeFileSync(path(ending), 'first');
  return {
    path: ['listen', 0, 'tls'],
    files: {
      ...{ certFile: path('pem'), keyFile: path('key'), crlFile: path('crl') },
      also: { certFile: path('also'), keyFile: path('key'), ocspFile: path('ocsp') },
    },
    serverNames: [{ name: 'b.test', files: { certFile: path('named'), keyFile: path('key') } }],
    reloadInterval,
  };
}

function watch(...tls: readonly (TlsSettings | undefined)[]): CertificateReloads {
  reloads = new CertificateReloads({
    listeners: tls.map((each, index) => ({ index, label: `address ${index}`, tls: each })),
    judge: () => {
      judged += 1;
      if (mistakes === undefined) throw new Error('out of descriptors');
      return mistakes;
    },
    tell: (indexes) => void told.push(indexes),
    log: createLog({ level: 'info' }, { write: (line) => void lines.push(JSON.parse(line).msg) }),
  });
  return reloads;
}

/** Looks at files happen every few milliseconds here; so many have happened then. */
const aFewLooks = () => Bun.sleep(60);
async function until(what: () => boolean): Promise<void> {
  while (!what()) await Bun.sleep(2);
}

describe('certificates', () => {
  test.each(['pem', 'key', 'named', 'also', 'crl', 'ocsp'])('a change of *.%s is seen', async (ending) => {
    watch(settings('a', 0.005));
    writeFileSync(join(folder, `a.${ending}`), 'second');
    await until(() => told.length === 1);
    expect(told).toEqual([[0]]);
  });

  test('workers are told of those addresses whose files have changed', async () => {
    watch(settings('a', 0.005), undefined, settings('c', 0.005));
    for (const name of ['a.pem', 'c.key']) writeFileSync(join(folder, name), 'second');
    await until(() => told.length === 2);
    expect(told.toSorted()).toEqual([[0], [2]]);
    expect(lines).toHaveLength(2);
  });

  test('on a mistake nobody is told, and the log says what and where', async () => {
    watch(settings('a', 0.005));
    mistakes = [{ path: ['serverNames', 'b.test', 'key'], message: 'it does not match' }];
    writeFileSync(join(folder, 'a.key'), 'second');
    await until(() => lines.length === 1);
    expect(told).toEqual([]);
    expect(lines).toEqual([
      "the certificates of address 0 stay as they are, the new ones cannot be used: listen[0].tls.serverNames['b.test'].key: it does not match",
    ]);
  });

  test('a judge that cannot judge changes nothing either', async () => {
    watch(settings('a', 0.005));
    mistakes = undefined as never;
    writeFileSync(join(folder, 'a.key'), 'second');
    await until(() => lines.length === 1);
    expect(told).toEqual([]);
  });

  test('files that are written, replaced or dated anew are noticed; those that are not are not judged', async () => {
    watch(settings('a', 0.005));
    await aFewLooks();
    expect(judged).toBe(0);
    writeFileSync(join(folder, 'a.key'), 'second');
    await until(() => told.length === 1);
    writeFileSync(join(folder, 'new'), 'third');
    renameSync(join(folder, 'new'), join(folder, 'a.named'));
    await until(() => told.length === 2);
    utimesSync(join(folder, 'a.pem'), new Date(), new Date(Date.now() + 60_000));
    await until(() => told.length === 3);
  });

  test('a mistake is said once for each state of the files, and put right it is over', async () => {
    watch(settings('a', 0.005));
    mistakes = [{ path: [], message: 'a file is missing' }];
    rmSync(join(folder, 'a.key'));
    await until(() => lines.length === 1);
    await aFewLooks();
    expect([judged, lines.length]).toEqual([1, 1]);
    mistakes = [];
    writeFileSync(join(folder, 'a.key'), 'second');
    await until(() => told.length === 1);
  });

  test('with an interval of 0, and once stopped, nobody looks', async () => {
    watch(settings('a', 0), settings('b', 0.005)).stop();
    for (const name of ['a.key', 'b.key']) writeFileSync(join(folder, name), 'second');
    await aFewLooks();
    expect(judged).toBe(0);
  });
});
