/**
 * Path patterns of WebSocket routes: '/chat', '/room/:name', '/files/*', '*'.
 * Role: their grammar, for the check of the config and for whoever matches paths.
 */

/** `name` takes one segment, which is not empty; `rest` takes everything that is left, possibly nothing. */
export type PatternSegment =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'rest' };

export type ParsedPattern = { readonly segments: readonly PatternSegment[] } | { readonly problem: string };

const parameterName = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** RFC 3986 §3.3 pchar; what a path never holds cannot be matched. */
const pathText = /^(?:[A-Za-z0-9\-._~!$&'()+,;=:@]|%[0-9A-Fa-f]{2})*$/;
/** As other routers write a parameter, with or without a pattern for it: a whole segment `{name}`, `{name:\\d+}`, `[name]`, `<name>`, `[...rest]`. */
const foreignParameters = /(?<=\/)[{[<](\.{3})?([A-Za-z_]\w*)[^/]*[}\]>](?=\/|$)/g;

/** Parse a pattern, or say in `problem` what is wrong and what to write. */
export function parsePattern(pattern: string): ParsedPattern {
  if (pattern === '*') return { segments: [{ kind: 'rest' }] };
  if (!pattern.startsWith('/')) return { problem: `does not begin with a slash; write '/${pattern}'` };
  const query = pattern.search(/[?#]/);
  if (query >= 0) return { problem: `has a query or fragment, which routes do not match; write '${pattern.slice(0, query)}'` };

  const foreign = pattern.match(foreignParameters)?.[0];
  if (foreign !== undefined) {
    const ours = pattern.replace(foreignParameters, (_, rest: string | undefined, name: string) => (rest === undefined ? `:${name}` : '*'));
    return { problem: `has '${foreign}', which is how others write a parameter; write '${ours}'` };
  }

  const segments: PatternSegment[] = [];
  const names = new Set<string>();
  const texts = pattern.slice(1).split('/');
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
    } else if (text === '' && !isLast) {
      return { problem: 'has an empty segment (//); write a single slash' };
    } else if (text.includes('*')) {
      return { problem: `has '*' within a segment ('${text}'); write it alone, as the last segment` };
    } else if (!pathText.test(text)) {
      return { problem: `has a character that no path holds ('${text}'); percent-encode it, as in '${encodeURI(text.toWellFormed())}'` };
    } else {
      segments.push({ kind: 'text', text });
    }
  }
  return { segments };
}

/** Equal for two patterns that match exactly the same paths. */
export function patternShape(segments: readonly PatternSegment[]): string {
  return segments.map((segment) => (segment.kind === 'text' ? segment.text : segment.kind === 'name' ? ':' : '*')).join('/');
}
