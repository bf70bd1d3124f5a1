/**
 * How the admin listener words what workers have answered.
 * Role: from results of operations to HTTP. Up: admin-publish.ts, admin-topics.ts.
 */
import type { Operation, OperationProblem, OperationResult } from '../process/operations.ts';
import type { Context } from './admin-input.ts';

/** Has them done; ret: a result for each. */
export type Perform = (operations: readonly Operation[]) => Promise<readonly OperationResult[]>;

const statusOf = { wrong: 400, absent: 404, unavailable: 503, busy: 503, unknown: 504, failed: 500 } as const satisfies Record<
  OperationProblem['kind'],
  number
>;

/** In one sentence. */
export function problemText({ kind, error }: OperationProblem): string {
  return kind === 'unknown' ? `${error}: it may or may not have been done` : error;
}

export function problemStatus({ kind }: OperationProblem): (typeof statusOf)[OperationProblem['kind']] {
  return statusOf[kind];
}

/** `more`: stands beside the problem. */
export function problemAnswer(context: Context, problem: OperationProblem, more: object = {}): Response {
  const status = problemStatus(problem);
  return context.json({ error: problemText(problem), ...more }, status, status === 503 ? { 'retry-after': '1' } : {});
}

export function answerOf(context: Context, result: OperationResult | undefined): Response {
  if (result === undefined) throw new Error('a worker has answered less than it was asked');
  return 'problem' in result ? problemAnswer(context, result.problem) : context.json(result.answer);
}
