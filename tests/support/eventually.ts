/**
 * The wait of every test: for something that must come, however slow the machine is.
 * TEST_PATIENCE_MS gives more time where everything is slow, as under a debugger.
 */

/** Milliseconds. Only ends a test that has failed. */
export const patienceMs = Number(process.env.TEST_PATIENCE_MS ?? 25_000);

/** Poll until `check` gives something truthy. `limitMs`: for what takes longer than anything else. */
export async function eventually<Value>(
  what: string,
  check: () => Value | Promise<Value>,
  limitMs = patienceMs,
): Promise<NonNullable<Value>> {
  const end = performance.now() + limitMs;
  for (;;) {
    const value = await check();
    if (value) return value as NonNullable<Value>;
    if (performance.now() > end) throw new Error(`did not happen within ${limitMs} ms: ${what}`);
    await Bun.sleep(10);
  }
}
