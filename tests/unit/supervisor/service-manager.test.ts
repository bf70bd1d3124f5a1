import { describe, expect, test } from 'bun:test';
import { createLog } from '../../../src/log.ts';
import { ServiceManager } from '../../../src/supervisor/service-manager.ts';

function service(env: Record<string, string>, notify?: () => void) {
  const told: string[] = [];
  const lines: string[] = [];
  const log = createLog({ level: 'info' }, { write: (line) => void lines.push(JSON.parse(line).msg) });
  const native = {
    notify(socket: string, text: string) {
      notify?.();
      told.push(`${socket} ${text}`);
    },
  };
  return { told, lines, manager: ServiceManager.find(env, native, log) };
}

describe('the service manager', () => {
  test('is there only where NOTIFY_SOCKET names a socket', () => {
    expect(service({}).manager).toBeUndefined();
    expect(service({ NOTIFY_SOCKET: '' }).manager).toBeUndefined();
    expect(service({ NOTIFY_SOCKET: 'vsock:2:1234' }).manager).toBeUndefined();
    expect(service({ NOTIFY_SOCKET: '/run/notify' }).manager).toBeDefined();
    expect(service({ NOTIFY_SOCKET: '@abstract' }).manager).toBeDefined();
  });

  test('is told when the node is ready and when it stops, and of no watchdog that it has not', async () => {
    const { manager, told } = service({ NOTIFY_SOCKET: '/n' });
    manager?.ready();
    await Bun.sleep(20);
    manager?.stopping();
    expect(told).toEqual(['/n READY=1', '/n STOPPING=1']);
  });

  test('with a watchdog is told in half of its time that the supervisor goes on, until another one leads', async () => {
    const { manager, told } = service({ NOTIFY_SOCKET: '/n', WATCHDOG_USEC: '20000' });
    manager?.ready();
    while (told.length < 5) await Bun.sleep(1);
    expect(told.slice(0, 4)).toEqual(['/n READY=1', '/n WATCHDOG=1', '/n WATCHDOG=1', '/n WATCHDOG=1']);
    manager?.leave();
    const count = told.length;
    await Bun.sleep(50);
    expect(told).toHaveLength(count);
  });

  test('one that cannot be reached is complained of once', () => {
    const { manager, lines } = service({ NOTIFY_SOCKET: '/n' }, () => {
      throw Object.assign(new Error('no'), { code: 'ENOENT' });
    });
    manager?.ready();
    manager?.stopping();
    expect(lines).toEqual(['systemd cannot be told READY=1 at /n (ENOENT): does the unit have NotifyAccess=all?']);
  });
});
