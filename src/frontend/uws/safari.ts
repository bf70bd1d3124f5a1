/**
 * Clients that offer compression and cannot do it: Safari 15.0 to 15.3, which the original keeps from it too.
 * Role: pure. Up: app.ts.
 */
const broken = / Version\/15\.[0-3] .* ?Safari\//;

export function hasBrokenCompression(userAgent: string): boolean {
  return broken.test(userAgent);
}
