/** What HTTP requests get when the config has no `fetch`: 426 where a WebSocket route is, else 404. */
export function answerWithoutFetch(request: Request, hasRoute: (path: string) => boolean): Response {
  if (!hasRoute(new URL(request.url).pathname)) return new Response('Not Found', { status: 404 });
  return new Response('Upgrade Required: this path speaks WebSocket', { status: 426, headers: { upgrade: 'websocket' } });
}
