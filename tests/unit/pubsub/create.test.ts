import { describe, expect, test } from 'bun:test';
import { ConfigError } from '../../../src/config/config-error.ts';
import type { Core } from '../../../src/core/core.ts';
import { createLog } from '../../../src/log.ts';
import { createBus } from '../../../src/pubsub/create.ts';
import type { LinkContext } from '../../../src/pubsub/link.ts';
import { InProcessNetwork } from '../../support/in-process-link.ts';

const place = { index: 1, places: 2, workers: 2, nodeId: '00000000000000ab' };
const log = createLog({ level: 'silent' });

/** As much of a core as a bus touches before a turn. */
function fakeCore() {
  const told: Record<string, number>[] = [];
  const core = {
    epoch: 3,
    told,
    view: () => undefined,
    mail: () => 'gone',
    addStat: (index: number, by: number) => told.push({ [index]: by }),
    setGauge: (index: number, value: number) => told.push({ [index]: value }),
  };
  return core as unknown as Core;
}

const withLink = (create: (context: LinkContext) => object) =>
  createBus(fakeCore(), place, { redis: false, link: { create, linger: 1, required: false } }, log);

describe('what joins a worker to other nodes', () => {
  test('is nothing, where the config names nothing', async () => {
    expect(await createBus(fakeCore(), place, { redis: false, link: false }, log)).toBeUndefined();
  });

  test('is the link that the config brings, which is told whose it is', async () => {
    let publisher: LinkContext['publisher'] | undefined;
    const bus = await withLink((context) => {
      publisher = context.publisher;
      return new InProcessNetwork().link().create(context);
    });
    expect(bus?.state).toBe('connecting');
    expect(publisher).toEqual({ node: place.nodeId, worker: 3 * 512 + 1 });
    await Bun.sleep(1);
    expect(bus?.state).toBe('up');
  });

  test.each([
    ['nothing', () => undefined as never, 'create() returned no NodeLink: it has no start(), publish()'],
    [
      'half a link',
      () => ({ start() {}, publish() {}, subscribe() {}, unsubscribe() {} }),
      'it has no health(), close(); see docs/nodes.md',
    ],
    [
      'an error',
      () => {
        throw new Error('no servers');
      },
      'link: create() failed: no servers',
    ],
  ])('is refused as a mistake of the config, where create() gives %s', async (_, create, words) => {
    await expect(withLink(create)).rejects.toThrow(ConfigError);
    await expect(withLink(create)).rejects.toThrow(words);
  });
});
