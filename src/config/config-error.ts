/**
 * The error that says what is wrong with a config.
 * Role: in a file of its own, so that who only tells of mistakes, as the supervisor does, need not load what finds them. Up: everybody who reads
 * a config.
 */

/** The configuration cannot be used. `mistakes` has one line for each reason. */
export class ConfigError extends Error {
  readonly code = 'RW_CONFIG';
  readonly mistakes: readonly string[];
  constructor(where: string, mistakes: readonly string[]) {
    const count = mistakes.length === 1 ? '1 mistake' : `${mistakes.length} mistakes`;
    super([`${where}: ${count}`, ...mistakes.map((mistake) => `  ${mistake.replaceAll('\n', '\n  ')}`)].join('\n'));
    this.name = 'ConfigError';
    this.mistakes = mistakes;
  }
}
