/** What is declared once, and shown elsewhere: the tables of the documentation, and the defaults in comments. */
import { afterAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { documented, tabulated, withTables } from '../../../scripts/tables.ts';
import { compressionDefaults, websocketDefaults } from '../../../src/config/websocket-options.ts';
import { compile } from '../../support/compiler.ts';

const root = join(import.meta.dir, '..', '..', '..');
const folder = mkdtempSync(join(tmpdir(), 'ringway-tables-'));
afterAll(() => rmSync(folder, { recursive: true }));

test.each([...tabulated])('the tables of %s are as `npm run tables` writes them', async (file) => {
  const page = readFileSync(join(root, file), 'utf8');
  expect(page.match(/by npm run tables -->/g)).toHaveLength(2);
  expect(await withTables(page)).toBe(page);
});

describe('the comment of an option', () => {
  test.each([
    ['WebSocketOptions', websocketDefaults],
    ['CompressionOptions', compressionDefaults],
  ])('of %s tells its default, and every option has one', (name, defaults) => {
    const told = documented('src/api/websocket.ts', name);
    expect(told.map((option) => option.name).toSorted()).toEqual(Object.keys(defaults).toSorted());
    for (const { name: option, meaning, fallback } of told) {
      const value: unknown = (defaults as unknown as Record<string, unknown>)[option];
      const text = Array.isArray(value) ? 'none' : typeof value === 'string' ? `'${value}'` : String(value);
      expect([option, fallback.split(', ')[0]]).toEqual([option, text]);
      expect(meaning.length).toBeGreaterThan(20);
    }
  });

  test('is in the typings, where editors find it', async () => {
    const words = ['-p', root, '--noEmit', 'false', '--declaration', '--emitDeclarationOnly', '--outDir', folder];
    expect(await compile(words)).toEqual({ said: '', code: 0 });
    const typings = readFileSync(join(folder, 'src/api/websocket.d.ts'), 'utf8');
    for (const { name, meaning } of documented('src/api/websocket.ts', 'WebSocketOptions')) {
      const comment = new RegExp(`/\\*\\*((?:(?!\\*/)[\\s\\S])*)\\*/\\n\\s*${name}\\?: `).exec(typings)?.[1] ?? '';
      expect(comment.replace(/\s*\n\s*\*?\s*/g, ' ')).toContain(meaning);
    }
    expect(typings).toMatch(/export interface WebSocketHandler<[^\n]*> extends WebSocketOptions \{/);
  }, 90_000);
});
