/**
 * Path patterns of WebSocket routes: '/chat', '/room/:name', '/files/*', '*'.
 * Role: their grammar, for the check of the config and for whoever matches paths. Down: pattern.ts.
 */
import { foreignParameterProblem, type ParsedPattern, parseSegments } from './pattern.ts';

/** RFC 3986 §3.3 pchar; what a path never holds cannot be matched. */
const pathText = /^(?:[A-Za-z0-9\-._~!$&'()+,;=:@]|%[0-9A-Fa-f]{2})*$/;

/** Parse a pattern, or say in `problem` what is wrong and what to write. */
export function parsePattern(pattern: string): ParsedPattern {
  if (pattern === '*') return { segments: [{ kind: 'rest' }] };
  if (!pattern.startsWith('/')) return { problem: `does not begin with a slash; write '/${pattern}'` };
  const query = pattern.search(/[?#]/);
  if (query >= 0) return { problem: `has a query or fragment, which routes do not match; write '${pattern.slice(0, query)}'` };
  const foreign = foreignParameterProblem(pattern);
  if (foreign !== undefined) return { problem: foreign };
  return parseSegments(pattern.slice(1).split('/'), (text, isLast) => {
    if (text === '' && !isLast) return 'has an empty segment (//); write a single slash';
    // Told of by what is common to all patterns.
    if (text.includes('*') || pathText.test(text)) return undefined;
    return `has a character that no path holds ('${text}'); percent-encode it, as in '${encodeURI(text.toWellFormed())}'`;
  });
}
