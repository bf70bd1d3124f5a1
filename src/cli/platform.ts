/**
 * What to do on systems that Ringway does not run on.
 * Role: words. Up: cli.ts.
 */

const names: Readonly<Record<string, string>> = { darwin: 'macOS', win32: 'Windows' };

/** Commands that need neither the core nor a Linux kernel. */
const anywhere: ReadonlySet<string> = new Set(['init', 'publish', 'health', 'completion', 'check']);

/** ret: why `command` does not run on this system, and what to do; undefined where it does */
export function platformProblem(platform: string, command: string): string | undefined {
  if (platform === 'linux' || anywhere.has(command)) return undefined;
  return [
    `'ringway ${command}' runs on Linux only: the core is built on io_uring and epoll. ${containerAdvice(platform)}`,
    `  docker run --rm -it -p 8080:8080 -v "$PWD":/app ringway ${command === 'dev' ? 'dev' : command === 'run' ? 'run app.js' : command}`,
  ].join('\n');
}

/** ret: what to say beside a result that holds here as well; undefined on Linux */
export function platformNote(platform: string): string | undefined {
  return platform === 'linux' ? undefined : `the config can be judged here, but not served: ${containerAdvice(platform)}`;
}

function containerAdvice(platform: string): string {
  const name = names[platform] ?? platform;
  const wsl = platform === 'win32' ? ' WSL 2 is a Linux too: run it there without a container.' : '';
  return `On ${name} use the container image (docs/docker.md), in the folder of the config.${wsl}`;
}
