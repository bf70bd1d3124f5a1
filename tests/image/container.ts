/**
 * Builds the image as `npm run image` does, and runs containers of it without an engine.
 *
 * Role: used by image.test.ts. An Image lies in a folder of its own with all that belongs to it. Every process runs in a mount namespace
 * of its own, and every container in a PID namespace of its own: killing the process that was started leaves neither mounts nor processes.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { RunningProgram } from '../support/running-program.ts';

export const root = join(import.meta.dir, '..', '..');

/** What a container is set up with, in the way of `docker run`. */
export interface ContainerOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Folder or file here, by its path in the container; mounted read-only. */
  readonly volumes?: Readonly<Record<string, string>>;
  /** Path of a seccomp profile. */
  readonly seccomp?: string;
  /** Instead of the image's own. */
  readonly command?: readonly string[];
}

/** Parts of the image's configuration, as Docker writes it. */
export interface ImageConfig {
  readonly User: string;
  readonly ExposedPorts: Readonly<Record<string, object>>;
  readonly WorkingDir: string;
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly Env: readonly string[];
  readonly Labels: Readonly<Record<string, string>>;
  readonly StopSignal: string;
  readonly Healthcheck: { readonly Test: readonly string[] };
}

const isolated = ['unshare', '--mount', '--'];
/** Their processes see only each other; the outermost dies with all of them. */
const contained = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];

/**
 * A container as an engine makes it, as far as processes and files go: the entrypoint is the first process of its PID namespace, the
 * root file system is read-only but for /tmp, no capabilities, no new privileges. Its network is this machine's.
 * in: words of the command that mounts its root file system up to '--', then path here and path inside of each volume up to '--', then
 * user and group by number, working folder and the command
 * (setpriv: who changes its user loses the signal that --kill-child has asked for)
 */
const asEngine = `
set -eu
mount_command=
while [ "$1" != -- ]; do mount_command="$mount_command '$1'"; shift; done
shift
tree=$(eval "$mount_command")
mount --bind "$tree" "$tree"
mount --rbind /dev "$tree/dev"
mount --rbind /sys "$tree/sys"
mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
while [ "$1" != -- ]; do
  mount --bind "$1" "$tree$2"
  mount -o remount,bind,ro "$tree$2"
  shift 2
done
shift
mount -o remount,bind,ro "$tree"
user=$1 folder=$2
shift 2
exec unshare --pid --fork --kill-child --root="$tree" --wd="$folder" --mount-proc -- \\
  setpriv --reuid="\${user%:*}" --regid="\${user#*:}" --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs --pdeathsig=KILL -- "$@"
`;

/** On a disk, which /tmp need not be: an overlay's upper layer cannot lie on every kind of file system. */
const prefix = '/var/tmp/ringway-image-';

/** What test runs that were killed have left. */
function removeStale(): void {
  const yesterday = Date.now() - 86_400_000;
  for (const name of readdirSync(dirname(prefix))) {
    const path = join(dirname(prefix), name);
    if (path.startsWith(prefix) && (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? yesterday) < yesterday)
      rmSync(path, { recursive: true, force: true });
  }
}

export class Image {
  readonly config: ImageConfig;
  readonly sizeBytes: number;
  readonly #folder: string;
  readonly #name: string;
  readonly #containers = new Set<Container>();

  private constructor(folder: string, name: string) {
    this.#folder = folder;
    this.#name = name;
    const inspected = JSON.parse(this.#buildah(['inspect', '--type', 'image', name])) as { Docker: { config: ImageConfig } };
    this.config = inspected.Docker.config;
    this.sizeBytes = this.#layerBytes();
  }

  /** Takes a minute or two. Throws with all that was printed when it fails. */
  static async build(): Promise<Image> {
    removeStale();
    const folder = mkdtempSync(prefix);
    try {
      const words = [
        process.execPath,
        join(root, 'scripts/image.mjs'),
        '--base',
        'debootstrap',
        '--tag',
        'ringway:test',
        '--storage',
        folder,
      ];
      const child = Bun.spawn([...isolated, ...words], { cwd: root, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
      const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
      if (code !== 0) throw new Error(`npm run image ended with ${code}:\n${err}${out}`);
      return new Image(folder, 'localhost/ringway:test');
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** Run a command in a container to its end. */
  async output(command: readonly string[], options: ContainerOptions = {}): Promise<{ code: number; out: string }> {
    const container = this.run({ ...options, command });
    return { code: await container.exited, out: container.output() };
  }

  /** Run the image's command. */
  run(options: ContainerOptions = {}): Container {
    const name = this.#container(options);
    const volumes = Object.entries(options.volumes ?? {}).flatMap(([inside, here]) => ['--volume', `${here}:${inside}:ro`]);
    const env = Object.entries(options.env ?? {}).flatMap(([key, value]) => ['--env', `${key}=${value}`]);
    const words = this.#words(['run', '--isolation', 'chroot', '--network', 'host', ...volumes, ...env, name, '--']);
    return this.#start([...contained, ...words, ...this.#command(options)], this.#env);
  }

  /** Run the image's command as an engine would: see `asEngine`. */
  runAsEngine(options: ContainerOptions = {}): Container {
    const mount = this.#words(['mount', this.#container(options)]);
    const volumes = Object.entries(options.volumes ?? {}).flatMap(([inside, here]) => [here, inside]);
    const env = Object.fromEntries(this.config.Env.map((entry) => entry.split(/=(.*)/s)));
    const { User, WorkingDir } = this.config;
    const words = ['sh', '-c', asEngine, 'sh', ...mount, '--', ...volumes, '--', User, WorkingDir, ...this.#command(options)];
    // sbin, where mount programs are, is in the image's PATH too.
    return this.#start([...isolated, ...words], { ...env, ...options.env });
  }

  /** Stop what still runs, and remove everything. */
  async remove(): Promise<void> {
    for (const container of this.#containers) await container.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #start(words: readonly string[], env: Readonly<Record<string, string | undefined>>): Container {
    const container = new Container(words, env);
    this.#containers.add(container);
    void container.exited.then(() => this.#containers.delete(container));
    return container;
  }

  #command(options: ContainerOptions): readonly string[] {
    return options.command ?? [...this.config.Entrypoint, ...this.config.Cmd];
  }

  #container(options: ContainerOptions): string {
    const security = options.seccomp === undefined ? [] : ['--security-opt', `seccomp=${options.seccomp}`];
    return this.#buildah(['from', '--pull-never', ...security, this.#name]);
  }

  #layerBytes(): number {
    const [image] = JSON.parse(this.#buildah(['images', '--json', this.#name])) as [{ size: string }];
    const [, number, unit = ''] = /^([\d.]+) ([KMG]B)$/.exec(image.size) ?? [];
    return Number(number) * ({ KB: 1e3, MB: 1e6, GB: 1e9 }[unit] ?? Number.NaN);
  }

  /** buildah leaves temporary files when it is killed: they go into the folder too, which npm run image has made. */
  get #env(): Readonly<Record<string, string | undefined>> {
    return { ...process.env, TMPDIR: join(this.#folder, 'tmp') };
  }

  #words(words: readonly string[]): string[] {
    return ['buildah', '--root', join(this.#folder, 'images'), '--runroot', join(this.#folder, 'run'), ...words];
  }

  #buildah(words: readonly string[]): string {
    const [command = '', ...rest] = [...isolated, ...this.#words(words)];
    const { status, stdout, stderr } = spawnSync(command, rest, { encoding: 'utf8', env: this.#env });
    if (status !== 0) throw new Error(`buildah ${words.join(' ')} ended with ${status}:\n${stderr}`);
    return stdout.trim();
  }
}

export class Container extends RunningProgram {
  /** The exit code, once all that it wrote has been read. */
  readonly exited: Promise<number>;

  constructor(words: readonly string[], env: Readonly<Record<string, string | undefined>>) {
    super(words, { env });
    this.exited = this.ended();
  }

  /** More patient: a container takes its time to start. */
  override finds(pattern: RegExp, limitMs = 60_000): Promise<RegExpExecArray> {
    return super.finds(pattern, limitMs);
  }

  /** Where it listens, once it does. */
  async ports(): Promise<{ port: number; adminPort: number }> {
    const port = Number(await this.says(/listening on http:\/\/[^"\s]*?:(\d+)/));
    return { port, adminPort: Number(await this.says(/admin http:\/\/[\d.]+:(\d+)/)) };
  }

  /** The process that an engine would send signals to: its pid here. */
  async entrypoint(): Promise<number> {
    return eventually('the entrypoint runs', () => descendants(this.pid).find((pid) => nameOf(pid) === 'tini'));
  }
}

/** Parent and name, from proc_pid_stat(5). */
function statOf(pid: number): { name: string; parent: number } | undefined {
  try {
    const [, name = '', parent] = /^\d+ \((.*)\) \S (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'latin1')) ?? [];
    return { name, parent: Number(parent) };
  } catch {
    return undefined;
  }
}

const nameOf = (pid: number) => statOf(pid)?.name;

/** Processes below one, nearest first. */
export function descendants(pid: number): number[] {
  const all = readdirSync('/proc').flatMap((entry) => (/^\d+$/.test(entry) ? [Number(entry)] : []));
  const parents = new Map(all.map((each) => [each, statOf(each)?.parent]));
  const found = [pid];
  for (const each of found) found.push(...all.filter((candidate) => parents.get(candidate) === each));
  return found.slice(1);
}
