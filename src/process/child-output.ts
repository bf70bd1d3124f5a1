/**
 * What a child process writes, read through a socket of ours.
 *
 *   child: descriptor 1 or 2 ── socketpair(2) ── Bun.connect({ fd }) ──> bytes
 *
 * Role: in place of Bun.spawn's own 'pipe', whose reader stops for good now and then when the machine is busy (Bun 1.4.5: the descriptor
 * stays in its epoll set disarmed, with bytes to be read), while sockets are watched without disarming. Up: supervisor/worker-process.ts.
 */

/** What is needed of the system; core/native.ts has it as `native`. */
export interface PairNative {
  /** Two connected sockets, not inherited. */
  socketPair(): [number, number];
  fdClose(fd: number): void;
}

export interface ChildOutput {
  /** To be given to the child. */
  readonly childFd: number;
  /** Ends when the child, and whoever has inherited it, has closed it. */
  readonly bytes: ReadableStream<Uint8Array>;
  /** Once the child has been started, or could not be. */
  handedOver(): void;
}

/** Throws when there are no descriptors left. */
export function openChildOutput(native: PairNative): ChildOutput {
  const [own, childFd] = native.socketPair();
  const bytes = new ReadableStream<Uint8Array>({
    start(controller) {
      let isOpen = true;
      const close = () => {
        if (isOpen) controller.close();
        isOpen = false;
      };
      const fail = (error: unknown) => {
        if (isOpen) controller.error(error);
        isOpen = false;
      };
      const options: Bun.FdSocketOptions<undefined> = {
        fd: own,
        socket: { data: (_, received) => controller.enqueue(received), close, error: (_, error) => fail(error) },
      };
      // Its types leave this way of calling it out.
      Bun.connect(options as unknown as Bun.UnixSocketOptions<undefined>).catch(fail);
    },
  });
  return { childFd, bytes, handedOver: () => native.fdClose(childFd) };
}
