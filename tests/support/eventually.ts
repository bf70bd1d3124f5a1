/** Poll until `check` gives something truthy; the limit only ends a test that has failed. */
export async function eventually<Value>(what: string, check: () => Value | Promise<Value>, limitMs = 20_000): Promise<NonNullable<Value>> {
  const end = performance.now() + limitMs;
  for (;;) {
    const value = await check();
    if (value) return value as NonNullable<Value>;
    if (performance.now() > end) throw new Error(`did not happen within ${limitMs} ms: ${what}`);
    await Bun.sleep(10);
  }
}
