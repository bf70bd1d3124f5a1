/**
 * Finds the handlers of a request: by method and path, the most specific first.
 *
 * Role: pure. Up: app.ts, which has one for the app and one for each server name.
 *
 *   method ──> upgrade routes ──> plain routes ──> routes of any method
 *              in each, segment by segment: its own name, then a parameter, then a wildcard (which takes all that is left)
 *
 * A handler may pass the request on; the search then goes on behind it. Paths that a program has named in full are looked up once and
 * kept, so that a request for one of them costs one look into a map.
 */
import { methodNames } from '../../core/http.ts';

/** More segments than these end a path, and no pattern can be deeper. */
const segmentsMax = 100;

/** Index of OTHER in `methodNames`: a request with such a method has no routes but those of any method. */
const anyMethod = 0;

const noParameters: readonly string[] = [];

/** Tries a handler. ret: whether it took the request */
export type Attempt<Target, Response, Request> = (
  target: Target,
  parameters: readonly string[],
  response: Response,
  request: Request,
) => boolean;

/** What a path leads to, in the order in which handlers are tried. */
interface Candidate<Target> {
  readonly target: Target;
  readonly parameters: readonly string[];
}

class Node<Target> {
  readonly statics = new Map<string, Node<Target>>();
  parameter: Node<Target> | undefined;
  /** By the whole segment, `*` and what follows it: each takes every path. */
  readonly wildcards = new Map<string, Node<Target>>();
  target: Target | undefined;
}

interface MethodRoutes<Target> {
  readonly upgrade: Node<Target>;
  readonly plain: Node<Target>;
}

export class Router<Target, Response, Request> {
  /** By index into `methodNames`; routes of any method stand at `anyMethod`. */
  readonly #methods: (MethodRoutes<Target> | undefined)[] = [];
  /** For each method, paths that stand in a pattern in full: null until one is asked for. */
  readonly #known: (Map<string, readonly Candidate<Target>[] | null> | undefined)[] = [];
  readonly #statics = new Set<string>();

  /** A route of the same method, pattern and kind is replaced. `method`: a name in upper case, or `*`. */
  add(method: string, pattern: string, target: Target, isUpgrade = false): void {
    const index = indexOf(method);
    const routes = this.#methods[index] ?? { upgrade: new Node<Target>(), plain: new Node<Target>() };
    this.#methods[index] = routes;
    let node = isUpgrade ? routes.upgrade : routes.plain;
    for (const segment of segmentsOf(pattern)) node = childOf(node, segment);
    node.target = target;
    if (isStatic(pattern)) this.#statics.add(pattern);
    this.#known.length = 0;
  }

  remove(method: string, pattern: string, isUpgrade = false): void {
    const routes = this.#methods[indexOf(method)];
    if (routes === undefined) return;
    let node: Node<Target> | undefined = isUpgrade ? routes.upgrade : routes.plain;
    for (const segment of segmentsOf(pattern)) node = node === undefined ? undefined : findChild(node, segment);
    if (node !== undefined) node.target = undefined;
    this.#known.length = 0;
  }

  /** Try handlers until one takes the request. `method`: an index into `methodNames`. ret: whether one did */
  route(method: number, path: string, attempt: Attempt<Target, Response, Request>, response: Response, request: Request): boolean {
    const known = this.#known[method] ?? this.#learn(method);
    let candidates = known.get(path);
    if (candidates === undefined) return this.#search(method, path, attempt, response, request);
    if (candidates === null) {
      candidates = this.#candidatesOf(method, path);
      known.set(path, candidates);
    }
    for (const candidate of candidates) if (attempt(candidate.target, candidate.parameters, response, request)) return true;
    return false;
  }

  #learn(method: number): Map<string, readonly Candidate<Target>[] | null> {
    const known = new Map<string, readonly Candidate<Target>[] | null>();
    for (const path of this.#statics) known.set(path, null);
    this.#known[method] = known;
    return known;
  }

  #candidatesOf(method: number, path: string): Candidate<Target>[] {
    const list: Candidate<Target>[] = [];
    this.#search(
      method,
      path,
      (target, parameters) => {
        list.push({ target, parameters });
        return false;
      },
      undefined as Response,
      undefined as Request,
    );
    return list;
  }

  #search(method: number, path: string, attempt: Attempt<Target, Response, Request>, response: Response, request: Request): boolean {
    const search = new Search(path, attempt, response, request);
    const own = method === anyMethod ? undefined : this.#methods[method];
    if (own !== undefined && (search.walk(own.upgrade, 0, 0) || search.walk(own.plain, 0, 0))) return true;
    const any = this.#methods[anyMethod];
    return any !== undefined && search.walk(any.plain, 0, 0);
  }
}

class Search<Target, Response, Request> {
  readonly path: string;
  readonly attempt: Attempt<Target, Response, Request>;
  readonly response: Response;
  readonly request: Request;
  /** What the parameters on the way have taken. */
  readonly taken: string[] = [];

  constructor(path: string, attempt: Attempt<Target, Response, Request>, response: Response, request: Request) {
    this.path = path;
    this.attempt = attempt;
    this.response = response;
    this.request = request;
  }

  /** Try what lies below `node` for the rest of the path, which begins with the slash at `at`. */
  walk(node: Node<Target>, at: number, depth: number): boolean {
    const { path } = this;
    if (at >= path.length || depth === segmentsMax) return this.#try(node);
    const slash = path.indexOf('/', at + 1);
    const end = slash < 0 ? path.length : slash;
    const segment = path.slice(at + 1, end);
    const same = node.statics.get(segment);
    if (same !== undefined && this.walk(same, end, depth + 1)) return true;
    if (node.parameter !== undefined && segment !== '') {
      this.taken.push(segment);
      if (this.walk(node.parameter, end, depth + 1)) return true;
      this.taken.pop();
    }
    for (const wildcard of node.wildcards.values()) if (this.#try(wildcard)) return true;
    return false;
  }

  #try({ target }: Node<Target>): boolean {
    if (target === undefined) return false;
    const parameters = this.taken.length === 0 ? noParameters : this.taken.slice();
    return this.attempt(target, parameters, this.response, this.request);
  }
}

function indexOf(method: string): number {
  return method === '*' ? anyMethod : methodNames.indexOf(method as (typeof methodNames)[number]);
}

/** A path begins with a slash; whatever stands in its place is not looked at. */
function segmentsOf(pattern: string): string[] {
  return pattern === '' ? [] : pattern.slice(1).split('/', segmentsMax);
}

function isStatic(pattern: string): boolean {
  return segmentsOf(pattern).every((segment) => segment[0] !== ':' && segment[0] !== '*');
}

function findChild<Target>(node: Node<Target>, segment: string): Node<Target> | undefined {
  if (segment[0] === ':') return node.parameter;
  return (segment[0] === '*' ? node.wildcards : node.statics).get(segment);
}

function childOf<Target>(node: Node<Target>, segment: string): Node<Target> {
  const found = findChild(node, segment);
  if (found !== undefined) return found;
  const child = new Node<Target>();
  if (segment[0] === ':') node.parameter = child;
  else (segment[0] === '*' ? node.wildcards : node.statics).set(segment, child);
  return child;
}

/** Names of the parameters in a pattern, in the order in which they stand there. */
export function parameterNamesOf(pattern: string): readonly string[] {
  return Array.from(pattern.matchAll(/:([^/]*)/g), ([, name]) => name as string);
}
