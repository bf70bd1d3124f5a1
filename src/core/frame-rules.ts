/** What RFC 6455 allows in the frames that we send. */

/** Most data of a control frame (§5.5). */
export const controlBytesMax = 125;

/** Whether a close frame may carry this code (§7.4). */
export function isCloseCode(code: number): boolean {
  return Number.isInteger(code) && ((code >= 3000 && code <= 4999) || (code >= 1007 && code <= 1014) || (code >= 1000 && code <= 1003));
}
