import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { type Authority, createAuthority } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { frame, opcode } from '../support/frames.mjs';
import { isAlive } from '../support/process-state.ts';
import { RunningProgram } from '../support/running-program.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const main = join(import.meta.dir, '..', '..', 'src', 'main.ts');
let folder: string;
const running = new Set<Run>();
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-run-'));
});
afterEach(async () => {
  for (const run of running) await run.stop();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** `ringway run` with a program, as a process of its own. */
class Run extends RunningProgram {
  constructor(args: readonly string[], env: Record<string, string> = {}) {
    const { PORT, ADMIN_PORT, WORKERS, ...inherited } = process.env;
    super([process.execPath, main, 'run', ...args], { cwd: folder, env: { ...inherited, ...env } });
    running.add(this);
  }

  override async ended(): Promise<number> {
    const code = await super.ended();
    running.delete(this);
    return code;
  }

  /** The port, once all workers listen. */
  async port(): Promise<number> {
    return Number(await this.says(/listening on port (\d+)/));
  }

  async admin(): Promise<string> {
    return `http://127.0.0.1:${await this.says(/admin http:\/\/127\.0\.0\.1:(\d+)/)}`;
  }
}

function write(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return name;
}

const chat = `
const uWS = require('uWebSockets.js');
const app = uWS.App();
let held;
app.ws('/*', {
  idleTimeout: 0,
  open(ws) { ws.subscribe('room'); ws.send('pid ' + process.pid); },
  message(ws, message, isBinary) { app.publish('room', message, isBinary); },
});
app.get('/pid', (res) => res.end(String(process.pid)));
app.get('/held', (res) => {
  res.onAborted(() => {});
  const timer = setInterval(() => {
    if (!require('fs').existsSync(process.env.RELEASE)) return;
    clearInterval(timer);
    res.cork(() => res.end('held until now'));
  }, 10);
});
app.listen('127.0.0.1', Number(process.env.PORT || 0), (socket) => {
  console.log('program ' + (socket ? uWS.us_socket_local_port(socket) : 'cannot listen') + ' ' + process.argv.slice(2).join('|'));
});
`;

interface Member {
  readonly wire: Wire;
  readonly pid: number;
}

/** A member of the room on each of two processes, or more. */
async function membersOnBoth(port: number): Promise<Member[]> {
  const members: Member[] = [];
  while (new Set(members.map(({ pid }) => pid)).size < 2) {
    const wire = await Wire.open(port, '/');
    members.push({ wire, pid: Number(String((await wire.frame())?.payload).slice(4)) });
  }
  return members;
}

/** Whatever one says, all hear. */
async function expectRoom(members: readonly Member[], said: string): Promise<void> {
  (members[0] as Member).wire.write(frame(opcode.text, said));
  for (const { wire } of members) expect(String((await wire.frame())?.payload)).toBe(said);
}

describe('ringway run', () => {
  test('the processes of a program share a port and their topics; standard output is theirs alone', async () => {
    const run = new Run([write('chat.cjs', chat), '--workers', '2', '--name', 'a b', '--', '--workers', '7']);
    const port = await run.port();
    const members = await membersOnBoth(port);
    await expectRoom(members, 'hello');
    await eventually('both have said so', () => run.out.split('\n').length > 2);
    expect(run.out).toBe(`program ${port} --name|a b|--workers|7\n`.repeat(2));
    expect(run.err).toContain('2 workers');
    for (const { wire } of members) wire.destroy();
  });

  for (const [name, text] of [
    ['program.js', "const { App } = require('uWebSockets.js');"],
    ['program.cjs', "const { App } = require('uWebSockets.js'); if (require('ringway/uws').App !== App) throw new Error('two modules');"],
    ['program.mjs', "import uWS, { App } from 'uWebSockets.js'; if (uWS.App !== App) throw new Error('two modules');"],
    ['program.ts', "import { App } from 'ringway/uws'; const name: string = 'ts';"],
  ] as const) {
    test(`${name} runs`, async () => {
      const listen = "App().get('/*', (res, req) => { res.end(req.getUrl()); }).listen('127.0.0.1', 0, () => {});";
      const run = new Run(['--workers=1', write(name, `${text}\n${listen}\n`)]);
      expect(await (await fetch(`http://127.0.0.1:${await run.port()}/${name}`)).text()).toBe(`/${name}`);
    });
  }

  test('a process that is killed is replaced; the others never notice, and its topics are joined again', async () => {
    const run = new Run([write('chat.cjs', chat), '--workers', '2', '--admin-port', '0']);
    const port = await run.port();
    const before = await membersOnBoth(port);
    const victim = (before[0] as Member).pid;
    process.kill(victim, 'SIGKILL');
    await run.says(/worker \d serves again/);
    const survivors = before.filter(({ pid }) => pid !== victim);
    const after = await membersOnBoth(port);
    expect(after.some(({ pid }) => pid === victim)).toBe(false);
    await expectRoom([...survivors, ...after], 'after the crash');
    const health = (await (await fetch(`${await run.admin()}/healthz`)).json()) as { workers: { restarts: number }[] };
    expect(health.workers.map(({ restarts }) => restarts).sort()).toEqual([0, 1]);
    for (const { wire } of [...survivors, ...after]) wire.destroy();
  });

  test('SIGTERM: requests finish, WebSockets close with 1001, nobody new comes in, exit 0', async () => {
    const release = join(folder, 'release');
    const run = new Run([write('chat.cjs', chat), '--workers', '2', '--drain-timeout', '60'], { RELEASE: release });
    const port = await run.port();
    const members = await membersOnBoth(port);
    const held = fetch(`http://127.0.0.1:${port}/held`);
    await fetch(`http://127.0.0.1:${port}/pid`);
    run.kill('SIGTERM');
    for (const { wire } of members) {
      const close = await wire.frame();
      expect([close?.opcode, close?.payload.readUInt16BE()]).toEqual([opcode.close, 1001]);
      wire.write(frame(opcode.close, close?.payload));
    }
    await eventually('new connections are refused', () =>
      fetch(`http://127.0.0.1:${port}/pid`).then(
        () => false,
        () => true,
      ),
    );
    writeFileSync(release, '');
    expect(await (await held).text()).toBe('held until now');
    expect(await run.ended()).toBe(0);
  });

  test('past --drain-timeout what is left is cut off, and said', async () => {
    const run = new Run([write('chat.cjs', chat), '--workers', '1', '--drain-timeout', '1'], { RELEASE: join(folder, 'never') });
    const port = await run.port();
    const held = fetch(`http://127.0.0.1:${port}/held`).catch((error: unknown) => error);
    await fetch(`http://127.0.0.1:${port}/pid`);
    run.kill('SIGINT');
    expect(await run.ended()).toBe(0);
    expect(await held).toBeInstanceOf(Error);
    expect(run.err).toContain('had connections left after 1 s (--drain-timeout)');
  });

  test('a program with a handler of its own for the signal gets it once, and decides', async () => {
    const own = `${chat}\nlet times = 0; process.on('SIGTERM', () => { times++; setTimeout(() => { console.log('handled ' + times); process.exit(5); }, 50); });`;
    const run = new Run([write('own.cjs', own), '--workers', '2']);
    await run.port();
    run.kill('SIGTERM');
    expect(await run.ended()).toBe(5);
    expect(run.out.match(/handled 1/g)).toHaveLength(2);
  });

  test('a program finds neither a message channel nor handlers that it has not made', async () => {
    const alone = `
      console.log(JSON.stringify([typeof process.send, process.connected, process.listenerCount('SIGTERM'), process.listenerCount('SIGINT'), process.env.RINGWAY_WORKER ?? null]));
      require('child_process').fork(__dirname + '/child.cjs').on('exit', (code) => console.log('child ' + code));`;
    write('child.cjs', "process.exit(typeof require('uWebSockets.js').App === 'function' ? 3 : 4)");
    const run = new Run([write('alone.cjs', alone), '--workers', '1']);
    expect(await run.ended()).toBe(0);
    expect(run.out).toBe('["undefined",false,0,0,null]\nchild 3\n');
  });

  test('a program that ends by itself is not started again; with the last one the node ends', async () => {
    const run = new Run([write('short.mjs', "console.log('done')"), '--workers', '2']);
    expect(await run.ended()).toBe(0);
    expect(run.out).toBe('done\ndone\n');
  });

  for (const [what, text, code] of [
    ['throws while it is loaded', "throw new Error('no database');", 1],
    ['exits with a code', 'process.exit(9);', 9],
    ['is killed by a signal', "process.kill(process.pid, 'SIGKILL'); setInterval(() => {}, 1000);", 137],
    ['is no JavaScript', 'let a = ;', 1],
  ] as const) {
    test(`a program that always ${what} is given up, with its exit code`, async () => {
      const run = new Run([write('loop.cjs', text), '--workers', '2']);
      expect(await run.ended()).toBe(code);
      expect(run.err).toContain(`giving up, with its exit code ${code}`);
      expect((run.err.match(/starting it again/g) ?? []).length).toBeGreaterThan(3);
    });
  }

  test('an admin listener is there only when it is asked for', async () => {
    const without = new Run([write('chat.cjs', chat), '--workers', '1']);
    await without.port();
    expect(without.err).not.toContain('admin');
    const run = new Run([write('chat.cjs', chat), '--workers', '2'], { ADMIN_PORT: '0' });
    const port = await run.port();
    const admin = await run.admin();
    expect((await fetch(`${admin}/readyz`)).status).toBe(200);
    await fetch(`http://127.0.0.1:${port}/pid`);
    expect(await (await fetch(`${admin}/metrics`)).text()).toMatch(/ringway_http_requests_total\{worker="\d"\} 1/);
  });

  test('a port for one process alone: the others end, and the node runs with what is left', async () => {
    const exclusive = `
      const uWS = require('uWebSockets.js');
      uWS.App().get('/*', (res) => res.end('mine')).listen('127.0.0.1', 0, uWS.LIBUS_LISTEN_EXCLUSIVE_PORT, (socket) => {
        if (!socket) process.exit(0);
      });`;
    const run = new Run([write('exclusive.cjs', exclusive), '--workers', '3', '--admin-port', '0']);
    const port = await run.port();
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('mine');
    expect(run.err).toContain(`listening on port ${port} (1 worker,`);
    expect((await fetch(`${await run.admin()}/readyz`)).status).toBe(200);
  });

  test('when the supervisor is killed the programs stop too', async () => {
    const run = new Run([write('chat.cjs', chat), '--workers', '2']);
    const members = await membersOnBoth(await run.port());
    run.kill('SIGKILL');
    await run.ended();
    for (const { pid } of members) await eventually(`process ${pid} has ended`, () => !isAlive(pid));
  });

  describe('SSLApp', () => {
    let authority: Authority;
    beforeAll(() => {
      authority = createAuthority();
    });
    afterAll(() => authority?.dispose());

    async function subjectShown(port: number): Promise<string> {
      const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', rejectUnauthorized: false });
      await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
      const { CN } = socket.getPeerCertificate().subject;
      socket.destroy();
      return String(CN);
    }

    test('SIGHUP loads its certificates again in every process; what is wrong is said, and the old ones stay', async () => {
      const put = (subject: string) => {
        const { cert, key } = authority.issue(subject, 'DNS:localhost');
        write('app.pem', cert);
        write('app.key', key);
      };
      put('first');
      const secure = `
        const { SSLApp } = require('uWebSockets.js');
        SSLApp({ cert_file_name: 'app.pem', key_file_name: 'app.key' }).get('/*', (res) => res.end('ok')).listen('127.0.0.1', 0, () => {});`;
      const run = new Run([write('secure.cjs', secure), '--workers', '2']);
      const port = await run.port();
      expect(await subjectShown(port)).toBe('first');
      put('second');
      run.kill('SIGHUP');
      await eventually('both show the second', async () => {
        const shown = await Promise.all(Array.from({ length: 12 }, () => subjectShown(port)));
        return shown.every((subject) => subject === 'second');
      });
      write('app.key', 'no key at all');
      run.kill('SIGHUP');
      await run.says(/reading the certificates of an SSLApp again failed: .*'app\.key'/);
      expect(await subjectShown(port)).toBe('second');
    });
  });
});
