/**
 * Tells when the content of files changes.
 *
 * Role: watches their folders, since an editor may write another file and rename it into place; a change is one of content, since editors and
 * build tools touch files without one. Changes that come together are told together. Up: dev.ts.
 */
import { createHash } from 'node:crypto';
import { type FSWatcher, readFileSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';

/** A save is several events: emptied, written, closed, renamed. */
const settleMs = 15;

export class FileChanges {
  readonly #onChange: (files: readonly string[]) => void;
  readonly #watchers = new Map<string, FSWatcher>();
  /** Each file and what it holds; undefined: it is not there, or cannot be read. */
  readonly #files = new Map<string, string | undefined>();
  #missing: readonly string[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `onChange` is called with the files that have changed, after they have been still for a moment. */
  constructor(onChange: (files: readonly string[]) => void) {
    this.#onChange = onChange;
  }

  /**
   * Watch these files beside those that are watched already. `missing`: files that come to be there, under these names with whatever ending,
   * are changes too. Throws when a folder cannot be watched.
   */
  watch(files: readonly string[], missing: readonly string[]): void {
    for (const file of files) if (!this.#files.has(file)) this.#files.set(file, contentOf(file));
    this.#missing = missing;
    for (const folder of new Set([...files, ...missing].map(dirname))) {
      if (this.#watchers.has(folder)) continue;
      try {
        this.#watchers.set(
          folder,
          watch(folder, (_, name) => this.#heard(folder, name)),
        );
      } catch (error) {
        // A folder that is not there yet, as for a missing import.
        if (files.some((file) => dirname(file) === folder)) throw error;
      }
    }
  }

  close(): void {
    clearTimeout(this.#timer);
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #heard(folder: string, name: string | null): void {
    // Without a name anything may have changed.
    const concerns = (path: string) => dirname(path) === folder && (name === null || basename(path) === name);
    const appears = (path: string) => dirname(path) === folder && (name === null || name.startsWith(basename(path)));
    if (![...this.#files.keys()].some(concerns) && !this.#missing.some(appears)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), settleMs);
  }

  #look(): void {
    const changed: string[] = [];
    for (const [file, before] of this.#files) {
      const now = contentOf(file);
      // A file that is gone for a moment is one that is being replaced.
      if (now === before || now === undefined) continue;
      this.#files.set(file, now);
      changed.push(file);
    }
    if (changed.length > 0 || this.#missing.length > 0) this.#onChange(changed);
  }
}

function contentOf(file: string): string | undefined {
  try {
    return createHash('sha1').update(readFileSync(file)).digest('base64');
  } catch {
    return undefined;
  }
}
