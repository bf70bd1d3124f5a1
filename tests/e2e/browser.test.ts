import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { chromium } from 'playwright-core';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const isInstalled = existsSync(executablePath);
if (!isInstalled) console.warn(`browser tests are skipped: ${executablePath} is not installed (apt-get install chromium, or set CHROMIUM)`);

const quiet = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const root = join(import.meta.dir, '..', '..');
const example = `
import example from ${JSON.stringify(join(root, 'gateway.config.ts'))};
export default { ...example, $OPTIONS };
`;

/** Wait until the page shows a value in one of its counters. */
const shows = (page: Page, counter: string, value: string | RegExp) => page.locator(`#${counter}`, { hasText: value }).waitFor();

describe.skipIf(!isInstalled)('a browser', () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath, args: quiet });
  });
  afterAll(() => browser?.close());

  forEachBackend('with the example', (backend) => {
    let gateway: Gateway;
    beforeAll(async () => {
      gateway = await startGateway({ backend, workers: 2, config: example });
    });
    afterAll(() => gateway?.stop());

    test('chats in a room: each pane sees what either says, and another page hears it too', async () => {
      const problems: string[] = [];
      const pages = await Promise.all([browser.newPage(), browser.newPage()]);
      for (const page of pages) {
        page.on('pageerror', (error) => problems.push(String(error)));
        page.on('console', (message) => {
          if (message.type() === 'error' && !message.text().includes('favicon')) problems.push(message.text());
        });
        await page.goto(`${gateway.url}/?room=tea`);
        await shows(page, 'open', '2 of 2');
      }
      const [page, other] = pages as [(typeof pages)[0], (typeof pages)[0]];
      const panes = page.locator('section.pane');
      expect(await panes.count()).toBe(2);
      for (const [index, text] of ['hello from the left', 'ñandú 🎉 from the right'].entries()) {
        await panes.nth(index).locator('input').fill(text);
        await panes.nth(index).locator('button[type=submit]').click();
        for (const seenBy of [page, other]) {
          for (const pane of await seenBy.locator('section.pane').all()) await pane.locator('li', { hasText: text }).waitFor();
        }
      }
      await panes.nth(0).locator('button.plain').click();
      await shows(page, 'sent', '102');
      // Two panes hear each of the 102 messages once.
      for (const seenBy of pages) await shows(seenBy, 'received', '204');
      await shows(page, 'ticks', /[1-9]/);
      expect(problems).toEqual([]);
      await Promise.all(pages.map((each) => each.close()));
      await eventually('its sockets are gone', async () => (await gateway.metric('ringway_subscriptions')) === 0);
    });

    test('shows who is in the room, and keeps what was said over a reload', async () => {
      const pages = await Promise.all([browser.newPage(), browser.newPage()]);
      const [page, other] = pages as [Page, Page];
      const names = async (of: Page) => (await of.locator('#there li').allTextContents()).map((text) => text.replace(/you$/, ''));
      for (const each of pages) {
        await each.goto(`${gateway.url}/?room=library`);
        await shows(each, 'open', '2 of 2');
      }
      for (const each of pages) await shows(each, 'count', '4 here');
      const panes = page.locator('section.pane');
      const before = await names(page);
      expect(before.toSorted()).toEqual((await names(other)).toSorted());
      expect(before).toContain((await panes.nth(0).locator('h2').textContent()) ?? '');
      for (const text of ['the first line', 'the second line']) {
        await panes.nth(0).locator('input').fill(text);
        await panes.nth(0).locator('button[type=submit]').click();
        await panes.nth(1).locator('li', { hasText: text }).waitFor();
      }
      await page.reload();
      await shows(page, 'open', '2 of 2');
      for (const pane of await panes.all()) {
        await pane.locator('li', { hasText: 'the second line' }).waitFor();
        expect((await pane.locator('li').allTextContents()).map((text) => text.replace(/.*(?=the )/, ''))).toEqual([
          'the first line',
          'the second line',
        ]);
      }
      // Nobody has left meanwhile, and what is said now comes once.
      expect((await names(page)).toSorted()).toEqual(before.toSorted());
      await other.locator('section.pane').nth(1).locator('input').fill('hello again');
      await other.locator('section.pane').nth(1).locator('button[type=submit]').click();
      await panes.nth(0).locator('li', { hasText: 'hello again' }).waitFor();
      expect(await panes.nth(0).locator('li').count()).toBe(3);
      await other.close();
      await shows(page, 'count', '2 here');
      await page.close();
    });

    test('echoes text and binary of many lengths, and closes cleanly both ways', async () => {
      const page = await browser.newPage();
      await page.goto(`${gateway.url}/hello`);
      const result = await page.evaluate(async (url) => {
        const socket = new WebSocket(url);
        socket.binaryType = 'arraybuffer';
        const next = (type: string) =>
          new Promise<MessageEvent & CloseEvent>((resolve) => socket.addEventListener(type, resolve as never, { once: true }));
        await next('open');
        const wrong: string[] = [];
        for (const length of [0, 1, 125, 126, 65535, 65536, 1024 * 1024]) {
          socket.send('x'.repeat(length));
          if ((await next('message')).data !== 'x'.repeat(length)) wrong.push(`text ${length}`);
          socket.send(new Uint8Array(length));
          if (((await next('message')).data as ArrayBuffer).byteLength !== length) wrong.push(`binary ${length}`);
        }
        socket.close(3000, 'enough');
        const { code, wasClean } = await next('close');
        return { wrong, code, wasClean, extensions: socket.extensions };
      }, `${gateway.wsUrl}/echo`);
      expect(result).toEqual({ wrong: [], code: 3000, wasClean: true, extensions: '' });
      await page.close();
    });
  });
});
