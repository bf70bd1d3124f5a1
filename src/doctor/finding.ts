/** What the doctor has found out about one thing. */

/** `problem`: what was asked for will not work here. `advice`: it works, and could work better. */
export type Verdict = 'ok' | 'advice' | 'problem';

/** A change that helps; where there are several, each is for another way of running the gateway. */
export interface Remedy {
  /** Where it is made: 'host' is a shell with root's rights. */
  readonly where: 'host' | 'shell' | 'systemd' | 'docker' | 'config' | 'install';
  readonly change: string;
}

export interface Finding {
  /** Stable, for programs that read the JSON. */
  readonly check: string;
  readonly verdict: Verdict;
  /** What is, in one line. */
  readonly what: string;
  readonly remedies: readonly Remedy[];
}

export function ok(check: string, what: string): Finding {
  return { check, verdict: 'ok', what, remedies: [] };
}

export function advice(check: string, what: string, ...remedies: readonly Remedy[]): Finding {
  return { check, verdict: 'advice', what, remedies };
}

export function problem(check: string, what: string, ...remedies: readonly Remedy[]): Finding {
  return { check, verdict: 'problem', what, remedies };
}

/** What falls short of what somebody has asked for is a problem; of what we assume, advice. */
export function short(isAsked: boolean, check: string, what: string, ...remedies: readonly Remedy[]): Finding {
  return { check, verdict: isAsked ? 'problem' : 'advice', what, remedies };
}

/** 1234567 as '1,234,567'. */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** Bytes as '1.5 GiB'. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
