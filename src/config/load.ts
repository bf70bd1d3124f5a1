/**
 * Reads gateway.config.ts: imports it, takes its default export, resolves it.
 * Role: used by the supervisor (to check) and by every worker (to run). Down: resolve.ts.
 */
import { existsSync, statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ConfigError } from './config-error.ts';
import { defaultConfigPath } from './defaults.ts';
import { type Environment, type ResolvedConfig, resolveConfig } from './resolve.ts';
import { show } from './show.ts';

/**
 * Load and check the config at `path`. `provideModules`: called before, with its folder, to let it import what it may not have beside it.
 * Throws ConfigError, which says all that is wrong with it.
 */
export async function loadConfig(
  path: string,
  provideModules: (folder: string) => void,
  env: Environment = process.env,
): Promise<ResolvedConfig> {
  const absolute = resolve(path);
  const name = basename(path);
  if (!existsSync(absolute)) {
    throw new ConfigError(path, [
      `${absolute}: there is no such file; run 'ringway init' to write a starter config, or name another file with -c`,
    ]);
  }
  if (!statSync(absolute).isFile())
    throw new ConfigError(path, [`${absolute}: is not a file; write the path of a config such as ${defaultConfigPath}`]);
  provideModules(dirname(absolute));
  let module: { readonly default?: unknown };
  try {
    module = await import(pathToFileURL(absolute).href);
  } catch (error) {
    throw new ConfigError(path, [importProblem(error, name)]);
  }
  return resolveConfig(await defaultExport(module, name), env, path, dirname(absolute));
}

async function defaultExport(module: { readonly default?: unknown }, name: string): Promise<unknown> {
  if (!('default' in module)) throw new ConfigError(name, [`${name}: has no default export; write export default defineGateway({ ... })`]);
  const value = module.default;
  const refuse = (what: string, instead: string): never => {
    throw new ConfigError(name, [`export default: is ${what}; write export default defineGateway(${instead})`]);
  };
  if (typeof value === 'function') return refuse('a function', '{ fetch: handler }');
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Promise)
    return refuse(show(value), '{ ... }');
  // A Hono app, as one exports it to Bun itself.
  if ('fetch' in value && 'routes' in value && 'request' in value) return refuse('a Hono app', '{ fetch: app }');
  return value;
}

interface Position {
  readonly file?: string;
  readonly line?: number;
  readonly column?: number;
  readonly lineText?: string;
}

/** Why the file could not be imported: Bun reports what it cannot parse or find with a position, all else is thrown by the file itself. */
function importProblem(error: unknown, name: string): string {
  if (error instanceof AggregateError) return error.errors.map((inner) => importProblem(inner, name)).join('\n');
  if (!(error instanceof Error) && !hasMessage(error)) return `${name}: threw ${show(error)} while it was loaded`;
  const position = 'position' in error ? (error.position as Position | null) : undefined;
  if (error.name === 'BuildMessage') {
    const at = position ? `${position.file || name}:${position.line}:${position.column}` : name;
    const excerpt = position?.lineText
      ? `\n  ${position.lineText.trimEnd()}\n  ${' '.repeat(Math.max(0, (position.column ?? 1) - 1))}^`
      : '';
    return `${at}: syntax error: ${error.message}${excerpt}`;
  }
  if (error.name === 'ResolveMessage') return `${name}: ${error.message}; check its spelling, or install the package`;
  const stack = 'stack' in error && typeof error.stack === 'string' ? `\n${error.stack}` : '';
  return `${name}: threw while it was loaded: ${error.message}${stack}`;
}

function hasMessage(error: unknown): error is { name: string; message: string } {
  return typeof error === 'object' && error !== null && 'message' in error && 'name' in error;
}
