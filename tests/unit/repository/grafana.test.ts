import { describe, expect, test } from 'bun:test';
import { createMetrics } from '../../../src/supervisor/metrics.ts';

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}

const dashboard: { title: string; panels: Panel[] } = await Bun.file(
  new URL('../../../packaging/grafana/ringway.json', import.meta.url),
).json();
const panels = dashboard.panels.filter(({ type }) => type !== 'row');
const targets = panels.flatMap((panel) => (panel.targets ?? []).map((target) => ({ ...target, panel: panel.title })));

/** Metrics with their labels, as a node with all there is exports them. */
async function exported(): Promise<Map<string, Set<string>>> {
  const metrics = createMetrics({
    workers: [{ isReady: true, restarts: 0 }],
    startedAtMs: 0,
    version: '1',
    generation: 1,
    reloads: { reloaded: 0 },
    linesLost: 0,
    read: () => 1,
  });
  const found = new Map<string, Set<string>>();
  for (const [, name = '', labels = ''] of (await metrics.metrics()).matchAll(/^(\w+)(?:\{(.*)\})? /gm)) {
    const known = found.get(name) ?? new Set();
    for (const [, label = ''] of labels.matchAll(/(\w+)="/g)) known.add(label);
    found.set(name, known);
  }
  return found;
}

describe('the Grafana dashboard', () => {
  test('names only metrics that exist, by labels that they have', async () => {
    const known = await exported();
    const wrong: string[] = [];
    for (const { expr, legendFormat, panel } of targets) {
      const names = [...expr.matchAll(/\b(?:ringway|process)_\w+/g)].map(([name]) => name);
      expect(names.length).toBe(1);
      const labels = known.get(names[0] ?? '');
      // What Prometheus adds to every series.
      const has = (label: string) => label === 'instance' || labels?.has(label);
      const grouped = /\bby \((\w+)\)/.exec(expr)?.[1];
      const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label = '']) => label);
      const selected = [...expr.matchAll(/(\w+)=~?"/g)].map(([, label = '']) => label);
      if (labels === undefined) wrong.push(`${panel}: ${names[0]}`);
      for (const label of [...shown, ...selected, ...(grouped === undefined ? [] : [grouped])]) {
        if (!has(label)) wrong.push(`${panel}: ${label}`);
      }
      if (shown.some((label) => label !== grouped)) wrong.push(`${panel}: shows what it does not group by`);
    }
    expect(wrong).toEqual([]);
    expect(targets.length).toBeGreaterThan(30);
  });

  test('counters are shown as rates, gauges as they are', async () => {
    for (const { expr, panel } of targets) {
      const isCounter = /_total\b/.test(expr);
      expect([panel, /\b(?:rate|increase)\(/.test(expr)]).toEqual([panel, isCounter]);
    }
  });

  test('what is worth an alert has a panel', () => {
    const shown = targets.map(({ expr }) => expr).join('\n');
    for (const name of [
      'connections_refused',
      'worker_restarts',
      'messages_dropped',
      'backpressure_closes',
      'event_loop_lag',
      'handler_errors',
      'redis_up',
      'redis_gaps',
    ]) {
      expect(shown).toContain(`${name}`);
    }
  });

  test('no panel covers another', () => {
    const cells = new Set<string>();
    for (const { gridPos } of dashboard.panels) {
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(cells.has(`${x} ${y}`)).toBe(false);
          cells.add(`${x} ${y}`);
        }
      }
    }
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
  });
});
