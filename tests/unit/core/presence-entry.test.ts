import { describe, expect, test } from 'bun:test';
import { decodePresenceEntry, encodePresenceEntry, presenceTopic } from '../../../src/core/presence-commands.ts';

describe('entries of presence logs', () => {
  test('come back as they were, whatever the user is called', () => {
    for (const user of ['a', 'ann', 'Ænn ☃ 😀', '"\\\n', 'x'.repeat(1024), '\ufeffann'])
      for (const info of ['', '{"name":"Ann"}', JSON.stringify('☃'.repeat(500))]) {
        const back = decodePresenceEntry(encodePresenceEntry({ user, info: Buffer.from(info) }));
        expect(back?.user).toBe(user);
        expect(Buffer.from(back?.info ?? []).toString()).toBe(info);
      }
  });

  test('have the bytes that the core writes', () => {
    expect(Buffer.from(encodePresenceEntry({ user: 'ann', info: Buffer.from('{}') })).toString('latin1')).toBe('\x03\0ann{}');
  });

  test('that are cut short, or are something else, are none', () => {
    for (const payload of ['', '\x03', '\x03\0', '\x03\0an', '\0\0', '\0\0x'])
      expect(decodePresenceEntry(Buffer.from(payload))).toBeUndefined();
  });

  test('lie in a log whose name no topic of a client has', () => {
    expect(presenceTopic('chat/1')).toBe('\0pchat/1');
  });
});
