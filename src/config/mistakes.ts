/**
 * What is wrong with a value of the config, and where it stands, as one would write it in the config.
 * Role: from what zod found to lines for people. Up: resolve.ts, websocket-options.ts, and whoever judges input with zod.
 */
import type { z } from 'zod';

/** `listen[1].port`, `websocket['/chat'].open`: as one would write it in the config. */
export function pathText(path: readonly PropertyKey[]): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else if (/^[A-Za-z_$][\w$]*$/.test(String(key))) text += text === '' ? String(key) : `.${String(key)}`;
    else text += `['${String(key)}']`;
  }
  return text;
}

export interface Mistake {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** What zod found, one entry for each mistake. Of a union, the branch that the value was meant for speaks. */
export function mistakesOf(issues: readonly z.core.$ZodIssue[], parent: readonly PropertyKey[] = []): Mistake[] {
  return issues.flatMap((issue): Mistake[] => {
    const path = [...parent, ...issue.path];
    if (issue.code === 'unrecognized_keys') {
      const messages = issue.message.split('\n');
      return issue.keys.map((key, index) => ({ path: [...path, key], message: messages[index] ?? 'is not an option' }));
    }
    if (issue.code === 'invalid_union') {
      const wrongKind = (found: z.core.$ZodIssue) =>
        found.path.length === 0 && (found.code === 'invalid_type' || found.code === 'invalid_value');
      const meant = issue.errors.find((branch) => !branch.some(wrongKind));
      if (meant !== undefined) return mistakesOf(meant, path);
    }
    return [{ path, message: issue.message }];
  });
}
