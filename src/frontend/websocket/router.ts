/**
 * Finds the WebSocket route of a path. Fixed paths win over parameters, parameters over '*', segment by segment from the left.
 * Role: pure. Up: entry.ts. Down: config/pattern.ts, config/route-pattern.ts.
 */
import { type PatternGrammar, type PatternMatch, PatternTable } from '../../config/pattern.ts';
import { parsePattern } from '../../config/route-pattern.ts';

export type RouteMatch<Target> = PatternMatch<Target>;

/** Texts are paths as in the request target, without its query. */
const pathGrammar: PatternGrammar = {
  parse: parsePattern,
  split: (path) => path.slice(1).split('/'),
  /** ret: undefined for text that is not percent-encoded UTF-8 */
  valueOf(segment) {
    if (!segment.includes('%')) return segment;
    try {
      return decodeURIComponent(segment);
    } catch {
      return undefined;
    }
  },
};

export class Router<Target> extends PatternTable<Target> {
  constructor(routes: Iterable<readonly [string, Target]>) {
    super(pathGrammar, routes);
  }
}
