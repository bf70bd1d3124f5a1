/**
 * Finds the WebSocket route of a path. Fixed paths win over parameters, parameters over '*', segment by segment from the left.
 * Role: pure. Up: entry.ts. Down: config/route-pattern.ts.
 */
import { type PatternSegment, parsePattern } from '../../config/route-pattern.ts';

interface Entry<Target> {
  readonly segments: readonly PatternSegment[];
  readonly target: Target;
}

export interface RouteMatch<Target> {
  readonly target: Target;
  readonly params: Readonly<Record<string, string>> | undefined;
}

const rank = { text: 0, name: 1, rest: 2 } as const;

export class Router<Target> {
  readonly #fixed = new Map<string, RouteMatch<Target>>();
  readonly #patterns: Entry<Target>[] = [];

  constructor(routes: Iterable<readonly [string, Target]>) {
    for (const [pattern, target] of routes) {
      const parsed = parsePattern(pattern);
      if ('problem' in parsed) throw new Error(`the pattern ${pattern} ${parsed.problem}`);
      if (parsed.segments.every((segment) => segment.kind === 'text')) this.#fixed.set(pattern, { target, params: undefined });
      else this.#patterns.push({ segments: parsed.segments, target });
    }
    this.#patterns.sort((a, b) => compare(a.segments, b.segments));
  }

  /** `path`: as in the request target, without its query. */
  match(path: string): RouteMatch<Target> | undefined {
    const fixed = this.#fixed.get(path);
    if (fixed !== undefined || this.#patterns.length === 0) return fixed;
    const segments = path.slice(1).split('/');
    for (const entry of this.#patterns) {
      const params = matchSegments(entry.segments, segments);
      if (params !== undefined) return { target: entry.target, params };
    }
    return undefined;
  }
}

function compare(a: readonly PatternSegment[], b: readonly PatternSegment[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const difference = rank[(a[i] as PatternSegment).kind] - rank[(b[i] as PatternSegment).kind];
    if (difference !== 0) return difference;
  }
  // Both match only when the longer one ends in a '*' that takes nothing: the other says it more exactly.
  return a.length - b.length;
}

function matchSegments(pattern: readonly PatternSegment[], path: readonly string[]): Record<string, string> | undefined {
  // Without a prototype: parameters may be named as its members are.
  const params: Record<string, string> = Object.create(null);
  for (const [index, segment] of pattern.entries()) {
    if (segment.kind === 'rest') return params;
    const text = path[index];
    if (text === undefined) return undefined;
    if (segment.kind === 'text') {
      if (segment.text !== text) return undefined;
    } else {
      const value = decode(text);
      if (value === undefined || value === '') return undefined;
      params[segment.name] = value;
    }
  }
  return pattern.length === path.length ? params : undefined;
}

/** ret: undefined for text that is not percent-encoded UTF-8 */
function decode(text: string): string | undefined {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
