/**
 * `npm run tables`: writes the tables of the documentation that follow from declarations. tests/unit/repository/tables.test.ts compares.
 *
 * A table stands between `<!-- table NAME, by npm run tables -->` and `<!-- end -->`.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createMetrics } from '../src/supervisor/metrics.ts';
import type { ReloadCounts } from '../src/supervisor/reload-queue.ts';

const root = join(import.meta.dir, '..');

export interface Documented {
  readonly name: string;
  readonly meaning: string;
  /** As its @default says. */
  readonly fallback: string;
}

/** Members of an interface of src/api, with what their comments say. */
export function documented(file: string, name: string): Documented[] {
  const body = new RegExp(`^export interface ${name}\\b[^\\n]*\\{\\n([\\s\\S]*?)^\\}`, 'm').exec(
    readFileSync(join(root, file), 'utf8'),
  )?.[1];
  if (body === undefined) throw new Error(`${file} has no interface ${name}`);
  return [...body.matchAll(/^ {2}\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n {2}(\w+)\?:/gm)].map(([, comment = '', member = '']) => {
    const text = comment.replace(/\s*\n\s*\*?\s*/g, ' ').trim();
    const [meaning = '', fallback = ''] = text.split(/\s*@default\s+/);
    if (fallback === '') throw new Error(`${name}.${member} has no @default`);
    return { name: member, meaning, fallback };
  });
}

const code = (text: string) => text.replace(/(?<!`)('[^' ]*')/g, '`$1`');

function optionsTable(file: string, name: string): string {
  const rows = documented(file, name).map(
    ({ name: option, meaning, fallback }) =>
      `| \`${option}\` | ${/^(true|false)$/.test(fallback) ? `\`${fallback}\`` : code(fallback)} | ${code(meaning)} |`,
  );
  return ['| option | default | meaning |', '| --- | --- | --- |', ...rows].join('\n');
}

const reloads: ReloadCounts = { reloaded: 0, wrong_config: 0, failed: 0, postponed: 0 };

/** `ofWorkers`: those with a series for each worker, else those of the supervisor. */
async function metricsTable(ofWorkers: boolean): Promise<string> {
  const registry = createMetrics({
    workers: [0, 1].map(() => ({ isReady: true, restarts: 0 })),
    startedAtMs: 0,
    version: '',
    generation: 1,
    reloads: { ...reloads },
    linesLost: 0,
    read: (worker) => worker + 1,
  });
  const rows: string[] = [];
  for (const { name, help, type, values } of await registry.getMetricsAsJSON()) {
    const labels = new Map<string, Set<string>>();
    for (const value of values)
      for (const [label, text] of Object.entries(value.labels)) labels.set(label, (labels.get(label) ?? new Set()).add(String(text)));
    if (name.startsWith('ringway_node_') || labels.delete('worker') !== ofWorkers) continue;
    const told = name === 'ringway_build_info' ? [] : [...labels].map(([label, texts]) => `\`${label}\`: ${[...texts].join(', ')}`);
    rows.push(`| \`${name}\` | ${type} | ${told.join('; ')} | ${help} |`);
  }
  return [
    `| metric ${ofWorkers ? 'of each worker' : 'of the supervisor'} | kind | labels | meaning |`,
    '| --- | --- | --- | --- |',
    ...rows,
  ].join('\n');
}

const tables: Readonly<Record<string, () => string | Promise<string>>> = {
  WebSocketOptions: () => optionsTable('src/api/websocket.ts', 'WebSocketOptions'),
  CompressionOptions: () => optionsTable('src/api/websocket.ts', 'CompressionOptions'),
  'metrics of workers': () => metricsTable(true),
  'metrics of the supervisor': () => metricsTable(false),
};

export const tabulated = ['docs/configuration.md', 'docs/operations.md'] as const;

/** A page, with its tables as they are to be. */
export async function withTables(text: string): Promise<string> {
  let page = text;
  for (const [, begin = '', name = '', old = ''] of text.matchAll(/(<!-- table (.+), by npm run tables -->\n)([\s\S]*?)<!-- end -->/g)) {
    const table = await tables[name]?.();
    if (table === undefined) throw new Error(`there is no table ${name}; write one of ${Object.keys(tables).join(', ')}`);
    page = page.replace(begin + old, () => `${begin}\n${table}\n\n`);
  }
  return page;
}

if (import.meta.main)
  for (const file of tabulated) {
    const path = join(root, file);
    writeFileSync(path, await withTables(readFileSync(path, 'utf8')));
  }
