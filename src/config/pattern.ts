/**
 * Patterns of segments between slashes: text, ':name', and '*' at the end.
 * Role: what routes (route-pattern.ts) and topics (topic-pattern.ts) have in common: segments, their order, and how they match. Pure.
 */

/** `name` takes one segment, which is not empty; `rest` takes everything that is left, possibly nothing. */
export type PatternSegment =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'rest' };

export type ParsedPattern = { readonly segments: readonly PatternSegment[] } | { readonly problem: string };

const parameterName = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** As other routers write a parameter, with or without a pattern for it: a whole segment `{name}`, `{name:\\d+}`, `[name]`, `<name>`, `[...rest]`. */
const foreignParameters = /(?<=^|\/)[{[<](\.{3})?([A-Za-z_]\w*)[^/]*[}\]>](?=\/|$)/g;

/** ret: what is wrong with a pattern that has a parameter as others write it, and what to write; undefined: it has none */
export function foreignParameterProblem(pattern: string): string | undefined {
  const foreign = pattern.match(foreignParameters)?.[0];
  if (foreign === undefined) return undefined;
  const ours = pattern.replace(foreignParameters, (_, rest: string | undefined, name: string) => (rest === undefined ? `:${name}` : '*'));
  return `has '${foreign}', which is how others write a parameter; write '${ours}'`;
}

/** `textProblem`: what is wrong with a segment of text; undefined: nothing. */
export function parseSegments(texts: readonly string[], textProblem: (text: string, isLast: boolean) => string | undefined): ParsedPattern {
  const segments: PatternSegment[] = [];
  const names = new Set<string>();
  for (const [index, text] of texts.entries()) {
    const isLast = index === texts.length - 1;
    if (text === '*') {
      if (!isLast) return { problem: "has '*' before its end; write a named parameter such as ':name' there" };
      segments.push({ kind: 'rest' });
    } else if (text.startsWith(':')) {
      const name = text.slice(1);
      if (!parameterName.test(name))
        return { problem: `has the parameter '${text}'; write a colon, then letters, digits and _ only, such as ':name'` };
      if (names.has(name)) return { problem: `names the parameter ':${name}' twice; give each its own name` };
      names.add(name);
      segments.push({ kind: 'name', name });
    } else {
      const problem =
        textProblem(text, isLast) ??
        (text.includes('*') ? `has '*' within a segment ('${text}'); write it alone, as the last segment` : undefined);
      if (problem !== undefined) return { problem };
      segments.push({ kind: 'text', text });
    }
  }
  return { segments };
}

/** Equal for two patterns that match exactly the same. */
export function patternShape(segments: readonly PatternSegment[]): string {
  return segments.map((segment) => (segment.kind === 'text' ? segment.text : segment.kind === 'name' ? ':' : '*')).join('/');
}

/** How texts are written, and what patterns of them look like. */
export interface PatternGrammar {
  parse(pattern: string): ParsedPattern;
  split(text: string): readonly string[];
  /** What a `:name` gives for a segment that is not empty; undefined: the segment can be no value. */
  valueOf(segment: string): string | undefined;
}

export interface PatternMatch<Target> {
  readonly target: Target;
  /** undefined: of a pattern without parameters. */
  readonly params: Readonly<Record<string, string>> | undefined;
}

interface Entry<Target> {
  readonly segments: readonly PatternSegment[];
  readonly target: Target;
}

const rank = { text: 0, name: 1, rest: 2 } as const;

/** Finds what belongs to a text: fixed text wins over parameters, parameters over '*', segment by segment from the left. */
export class PatternTable<Target> {
  readonly #grammar: PatternGrammar;
  readonly #fixed = new Map<string, PatternMatch<Target>>();
  /** Those that begin with a fixed segment, by that: they go before the others. */
  readonly #byFirst = new Map<string, Entry<Target>[]>();
  readonly #others: Entry<Target>[] = [];

  /** Throws Error for what is no pattern. */
  constructor(grammar: PatternGrammar, entries: Iterable<readonly [pattern: string, target: Target]>) {
    this.#grammar = grammar;
    for (const [pattern, target] of entries) {
      const parsed = grammar.parse(pattern);
      if ('problem' in parsed) throw new Error(`the pattern ${pattern} ${parsed.problem}`);
      if (parsed.segments.every((segment) => segment.kind === 'text')) this.#fixed.set(pattern, { target, params: undefined });
      else this.#listOf(parsed.segments[0]).push({ segments: parsed.segments, target });
    }
    for (const list of [...this.#byFirst.values(), this.#others]) list.sort((a, b) => compare(a.segments, b.segments));
  }

  #listOf(first: PatternSegment | undefined): Entry<Target>[] {
    if (first?.kind !== 'text') return this.#others;
    const list = this.#byFirst.get(first.text) ?? [];
    this.#byFirst.set(first.text, list);
    return list;
  }

  match(text: string): PatternMatch<Target> | undefined {
    const fixed = this.#fixed.get(text);
    if (fixed !== undefined || (this.#others.length === 0 && this.#byFirst.size === 0)) return fixed;
    const texts = this.#grammar.split(text);
    return this.#matchAny(this.#byFirst.get(texts[0] as string), texts) ?? this.#matchAny(this.#others, texts);
  }

  #matchAny(entries: readonly Entry<Target>[] | undefined, texts: readonly string[]): PatternMatch<Target> | undefined {
    for (const { segments, target } of entries ?? []) {
      const params = this.#matchSegments(segments, texts);
      if (params !== undefined) return { target, params };
    }
    return undefined;
  }

  #matchSegments(pattern: readonly PatternSegment[], texts: readonly string[]): Record<string, string> | undefined {
    // Without a prototype: parameters may be named as its members are.
    const params: Record<string, string> = Object.create(null);
    for (const [index, segment] of pattern.entries()) {
      if (segment.kind === 'rest') return params;
      const text = texts[index];
      if (text === undefined) return undefined;
      if (segment.kind === 'text') {
        if (segment.text !== text) return undefined;
      } else {
        const value = this.#grammar.valueOf(text);
        if (value === undefined || value === '') return undefined;
        params[segment.name] = value;
      }
    }
    return pattern.length === texts.length ? params : undefined;
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
