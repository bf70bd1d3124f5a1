/** Stands in place of a command, for the process that reads a config: see probe.ts, which those that start it need not load. */
export const probeWord = '--read-config';
