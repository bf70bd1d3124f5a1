/** Results as a person reads them, and as a program does. */
import type { Machine } from './machine.ts';
import type { Measurement } from './measurement.ts';
import type { ServerName } from './servers.ts';
import { type Spread, spreadOf } from './statistics.ts';
import type { Workload, WorkloadKind } from './workloads.ts';

/** What each server gave in one round; absent where it has nothing to be measured. */
export type Round = Partial<Record<ServerName, Measurement>>;

export interface Result {
  readonly workload: Workload;
  readonly rounds: readonly Round[];
  /** Why the workload broke off. */
  readonly error?: string;
}

const units: Record<WorkloadKind, string> = { cpu: 'µs', latency: 'µs', memory: 'B', idle: '%', silence: 'B', faults: '' };

/** cpu and latency are judged as parts of what the baseline takes in the same round; memory and idle as they are. */
export function isRelative({ kind }: Workload): boolean {
  return kind === 'cpu' || kind === 'latency';
}

function valuesOf(result: Result, name: ServerName): number[] {
  return result.rounds.flatMap((round) => round[name]?.value ?? []);
}

function ratiosOf(result: Result, name: ServerName): number[] {
  return result.rounds.flatMap((round) => {
    const { baseline } = result.workload;
    const [value, against] = [round[name]?.value, baseline && round[baseline]?.value];
    return value === undefined || against === undefined ? [] : value / against;
  });
}

/** What the target is compared with. ret: undefined when nothing was measured */
export function outcomeOf(result: Result): Spread | undefined {
  const { subject } = result.workload;
  const values = isRelative(result.workload) ? ratiosOf(result, subject) : valuesOf(result, subject);
  return values.length === 0 ? undefined : spreadOf(values);
}

function decimals(kind: WorkloadKind, relative: boolean): number {
  if (relative || kind === 'idle') return 2;
  return kind === 'cpu' || kind === 'latency' ? 3 : 0;
}

function withUnit(number: string, kind: WorkloadKind): string {
  return `${number} ${units[kind]}`.trimEnd();
}

function absolute(result: Result, name: ServerName): string {
  const values = valuesOf(result, name);
  const { kind } = result.workload;
  return values.length === 0 ? '–' : withUnit(spreadOf(values).median.toFixed(decimals(kind, false)), kind);
}

function rowOf(result: Result, others: readonly ServerName[]): string[] {
  const { workload } = result;
  const relative = isRelative(workload);
  const spread = outcomeOf(result);
  const digits = decimals(workload.kind, relative);
  const value = (amount: number) => (relative ? amount.toFixed(digits) : withUnit(amount.toFixed(digits), workload.kind));
  return [
    workload.title,
    `≤ ${relative ? workload.target.toFixed(2) : withUnit(String(workload.target), workload.kind)}`,
    spread === undefined ? '–' : value(spread.median),
    spread === undefined ? '–' : `${spread.min.toFixed(digits)} to ${spread.max.toFixed(digits)}`,
    verdictOf(result),
    absolute(result, workload.subject),
    workload.baseline === undefined ? '' : `${absolute(result, workload.baseline)} ${workload.baseline}`,
    ...others.map((name) => {
      if (name === workload.baseline) return '';
      const ratios = relative ? ratiosOf(result, name) : [];
      return ratios.length === 0 ? absolute(result, name) : spreadOf(ratios).median.toFixed(2);
    }),
  ];
}

function verdictOf(result: Result): string {
  const spread = outcomeOf(result);
  if (result.error !== undefined || spread === undefined) return 'BROKE';
  return spread.median <= result.workload.target ? 'OK' : 'MISS';
}

/** `asked`: servers that have a column even where no row has a value of them. */
function table(results: readonly Result[], asked: readonly ServerName[]): string[][] {
  const others = [...new Set([...asked, ...results.flatMap(({ workload }) => workload.beside ?? [])])];
  const head = ['workload', 'target', 'measured', 'of rounds', '', 'Ringway', 'against', ...others];
  return [head, ...results.map((result) => rowOf(result, others))];
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
export function progressLine(workload: Workload, name: ServerName, { value, perSecond, busy, note = '' }: Measurement): string {
  const amount = withUnit(value.toFixed(decimals(workload.kind, false)), workload.kind);
  const rate = perSecond === undefined ? '' : `${Math.round(perSecond).toLocaleString('en')}/s`;
  const share = busy === undefined ? '' : `CPU ${Math.round(busy * 100)} %`;
  return `    ${name.padEnd(14)} ${amount.padStart(12)}  ${rate.padStart(12)}  ${share}${note}`.trimEnd();
}

export function jsonReport(machine: Machine, results: readonly Result[]): string {
  const entries = results.map((result) => ({
    name: result.workload.name,
    title: result.workload.title,
    kind: result.workload.kind,
    baseline: result.workload.baseline ?? null,
    target: result.workload.target,
    measured: outcomeOf(result) ?? null,
    verdict: verdictOf(result),
    rounds: result.rounds,
    ...(result.error === undefined ? {} : { error: result.error }),
  }));
  return `${JSON.stringify({ machine, results: entries }, undefined, 2)}\n`;
}
