/** How the command ends; those above 63 are of sysexits.h. */
export const exitCodes = {
  ok: 0,
  /** It could not start: a port in use, no memory. */
  failure: 1,
  /** EX_USAGE: the command line is wrong. */
  usage: 64,
  /** EX_SOFTWARE: a defect of the gateway itself. */
  software: 70,
  /** EX_CONFIG: the configuration is wrong. */
  config: 78,
  /** 128 + SIGINT, 128 + SIGTERM: stopped at once by a second signal. */
  interrupted: 130,
  terminated: 143,
} as const;
