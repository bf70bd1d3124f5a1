/** Results as a person reads them, and as a program does. */
import type { Machine } from './machine.ts';
import type { Measurement } from './measurement.ts';
import type { ServerName } from './servers.ts';
import { type Spread, spreadOf } from './statistics.ts';
import { type Target, targetsOf, type Workload, type WorkloadKind } from './workloads.ts';

/** What each server gave in one round; absent where it has nothing to be measured. */
export type Round = Partial<Record<ServerName, Measurement>>;

export interface Result {
  readonly workload: Workload;
  readonly rounds: readonly Round[];
  /** Why the workload broke off. */
  readonly error?: string;
  /** Why this machine cannot run it. */
  readonly skipped?: string;
}

const units: Record<WorkloadKind, string> = {
  cpu: 'µs',
  connect: 'µs',
  latency: 'µs',
  memory: 'B',
  idle: 'µs/s',
  silence: 'B',
  faults: '',
  commands: '/s',
};

const figureNames = { p50: 'p50', p99: 'p99', p999: 'p99.9' } as const;

function valuesOf(result: Result, { figure }: Target, name: ServerName): number[] {
  return result.rounds.flatMap((round) => round[name]?.[figure] ?? []);
}

function ratiosOf(result: Result, { figure }: Target, name: ServerName): number[] {
  return result.rounds.flatMap((round) => {
    const { baseline } = result.workload;
    const [value, against] = [round[name]?.[figure], baseline && round[baseline]?.[figure]];
    return value === undefined || against === undefined ? [] : value / against;
  });
}

/** What the target is compared with. ret: undefined when nothing was measured */
function outcomeOf(result: Result, target: Target): Spread | undefined {
  const { subject } = result.workload;
  const values = target.relative ? ratiosOf(result, target, subject) : valuesOf(result, target, subject);
  return values.length === 0 ? undefined : spreadOf(values);
}

function decimals(kind: WorkloadKind): number {
  return kind === 'idle' || kind === 'cpu' || kind === 'connect' || kind === 'latency' ? 3 : 0;
}

/** Of a figure as it is, without its baseline's. */
function amountOf({ kind }: Workload, { figure }: Target, value: number): string {
  return figure === 'value' ? `${value.toFixed(decimals(kind))} ${units[kind]}`.trimEnd() : `${value.toFixed(1)} µs`;
}

function absolute(result: Result, target: Target, name: ServerName): string {
  const values = valuesOf(result, target, name);
  return values.length === 0 ? '–' : amountOf(result.workload, target, spreadOf(values).median);
}

function mostOf({ kind }: Workload, { figure, relative, most }: Target): string {
  if (relative) return `≤ ${most.toFixed(2)}`;
  return `≤ ${most} ${figure === 'value' ? units[kind] : 'µs'}`.trimEnd();
}

function rowsOf(result: Result, others: readonly ServerName[]): string[][] {
  return targetsOf(result.workload).map((target) => rowOf(result, target, others));
}

/** What a row is about, where its workload has several. */
function subjectOf({ figure, label }: Target): string {
  const text = label ?? (figure === 'value' ? undefined : figureNames[figure]);
  return text === undefined ? '' : `: ${text}`;
}

function rowOf(result: Result, target: Target, others: readonly ServerName[]): string[] {
  const { workload } = result;
  const { relative } = target;
  const spread = outcomeOf(result, target);
  const value = (amount: number) => (relative ? amount.toFixed(2) : amountOf(workload, target, amount));
  return [
    `${workload.title}${subjectOf(target)}`,
    mostOf(workload, target),
    spread === undefined ? '–' : value(spread.median),
    spread === undefined ? (result.skipped ?? '–') : `${value(spread.min)} to ${value(spread.max)}`,
    verdictOf(result, target),
    absolute(result, target, workload.subject),
    workload.baseline === undefined ? '' : `${absolute(result, target, workload.baseline)} ${workload.baseline}`,
    ...others.map((name) => {
      if (name === workload.baseline) return '';
      const ratios = relative ? ratiosOf(result, target, name) : [];
      return ratios.length === 0 ? absolute(result, target, name) : spreadOf(ratios).median.toFixed(2);
    }),
  ];
}

function verdictOf(result: Result, target: Target): string {
  const spread = outcomeOf(result, target);
  if (result.skipped !== undefined) return 'SKIPPED';
  if (result.error !== undefined || spread === undefined) return 'BROKE';
  return spread.median <= target.most ? 'OK' : 'MISS';
}

/** `asked`: servers that have a column even where no row has a value of them. */
function table(results: readonly Result[], asked: readonly ServerName[]): string[][] {
  const others = [...new Set([...asked, ...results.flatMap(({ workload }) => workload.beside ?? [])])];
  const head = ['workload', 'target', 'measured', 'of rounds', '', 'Ringway', 'against', ...others];
  return [head, ...results.flatMap((result) => rowsOf(result, others))];
}

export function textTable(results: readonly Result[], asked: readonly ServerName[]): string {
  const rows = table(results, asked);
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  const line = (row: string[]) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ');
  return rows.map((row) => line(row).trimEnd()).join('\n');
}

export function markdownTable(results: readonly Result[], asked: readonly ServerName[]): string {
  const [head = [], ...rows] = table(results, asked);
  return [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
}

export function machineLine(machine: Machine): string {
  const { cpu, cpus, kernel, bun, node, loadAverage } = machine;
  return `${cpu}, ${cpus} CPUs, Linux ${kernel}, Bun ${bun}, Node ${node}, load average ${loadAverage.toFixed(2)}`;
}

/** One measurement while the bench runs. */
export function progressLine(workload: Workload, name: ServerName, measurement: Measurement): string {
  const { value, perSecond, busy, p50, p99, p999, note = '' } = measurement;
  const amount = amountOf(workload, { figure: 'value', relative: false, most: 0 }, value);
  const latencies = p50 === undefined ? '' : `  p50 ${p50.toFixed(0)}, p99 ${p99?.toFixed(0)}, p99.9 ${p999?.toFixed(0)} µs`;
  const rate = perSecond === undefined ? '' : `${Math.round(perSecond).toLocaleString('en')}/s`;
  const share = busy === undefined ? '' : `CPU ${Math.round(busy * 100)} %`;
  return `    ${name.padEnd(14)} ${amount.padStart(12)}  ${rate.padStart(12)}  ${share.padEnd(9)}${latencies}${note}`.trimEnd();
}

export function jsonReport(machine: Machine, results: readonly Result[]): string {
  const entries = results.map((result) => ({
    name: result.workload.name,
    title: result.workload.title,
    kind: result.workload.kind,
    baseline: result.workload.baseline ?? null,
    targets: targetsOf(result.workload).map((target) => ({
      ...target,
      measured: outcomeOf(result, target) ?? null,
      verdict: verdictOf(result, target),
    })),
    rounds: result.rounds,
    ...(result.error === undefined ? {} : { error: result.error }),
    ...(result.skipped === undefined ? {} : { skipped: result.skipped }),
  }));
  return `${JSON.stringify({ machine, results: entries }, undefined, 2)}\n`;
}
