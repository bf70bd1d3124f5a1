/**
 * The library that verifies and signs tokens.
 * Role: loaded here alone, and only in processes that have to do with tokens.
 */
export type Jose = typeof import('jose');

export const loadJose = (): Promise<Jose> => import('jose');
