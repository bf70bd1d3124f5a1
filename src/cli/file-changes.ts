/**
 * Tells when the content of files changes.
 *
 * Role: watches their folders, since an editor may write another file and rename it into place; a change is one of content, since editors and
 * build tools touch files without one. Changes that come together are told together. Up: dev.ts.
 *
 *   event of a folder ──a moment──> look at every file ──those with other content──> onChange
 *   each second ───────────────────┘ and whether each folder is still the one that is watched
 *
 * The second way finds what the first cannot: a folder that is removed, or another one in its place, a file behind a link, a file system
 * without events, no watches left (inotify(7), max_user_watches).
 */
import { createHash } from 'node:crypto';
import { type FSWatcher, readdirSync, readFileSync, statSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { realPath } from './imported-files.ts';

/** A save is several events: emptied, written, closed, renamed. */
const settleMs = 15;
const lookEveryMs = 1000;

interface WatchedFile {
  /** Changes when it is written to. */
  stamp: string;
  /** Undefined: it is not there, or cannot be read. */
  content: string | undefined;
}

interface WatchedFolder {
  readonly watcher: FSWatcher;
  /** Which folder it was under this name. */
  readonly identity: string;
}

export class FileChanges {
  readonly #onChange: (files: readonly string[]) => void;
  readonly #folders = new Map<string, WatchedFolder>();
  readonly #files = new Map<string, WatchedFile>();
  /** Names that are of interest, by folder. */
  readonly #names = new Map<string, Set<string>>();
  /** Each missing file, and what is there with a name that begins as its own. */
  #missing = new Map<string, string>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #poll: ReturnType<typeof setInterval> | undefined;

  /** `onChange` is called with the files that have changed, after they have been still for a moment. */
  constructor(onChange: (files: readonly string[]) => void) {
    this.#onChange = onChange;
  }

  /**
   * Watch these files beside those that are watched already. `missing`: files that come to be there, under these names with whatever ending,
   * are changes too. Never throws: what cannot be watched is looked at each second.
   */
  watch(files: readonly string[], missing: readonly string[]): void {
    for (const file of files) {
      if (!this.#files.has(file)) this.#files.set(file, { stamp: stampOf(file), content: contentOf(file) });
      this.#concerns(file);
      this.#concerns(realPath(file));
    }
    this.#missing = new Map(missing.map((path) => [path, this.#missing.get(path) ?? similarTo(path)]));
    for (const path of missing) this.#concerns(path);
    this.#watchFolders();
    this.#poll ??= setInterval(() => {
      this.#watchFolders();
      this.#look();
    }, lookEveryMs);
  }

  close(): void {
    clearTimeout(this.#timer);
    clearInterval(this.#poll);
    for (const { watcher } of this.#folders.values()) watcher.close();
    this.#folders.clear();
  }

  #concerns(path: string): void {
    const names = this.#names.get(dirname(path)) ?? new Set();
    this.#names.set(dirname(path), names.add(basename(path)));
  }

  #watchFolders(): void {
    for (const folder of this.#names.keys()) {
      const identity = identityOf(folder);
      const watched = this.#folders.get(folder);
      if (watched?.identity === identity) continue;
      watched?.watcher.close();
      this.#folders.delete(folder);
      if (identity === undefined) continue;
      try {
        const watcher = watch(folder, (_, name) => this.#heard(folder, name));
        // It is watched anew, or looked at, a second later.
        watcher.on('error', () => {});
        this.#folders.set(folder, { watcher, identity });
      } catch {
        // There are no rights to it, or no watches left.
      }
    }
  }

  #heard(folder: string, name: string | null): void {
    const names = this.#names.get(folder);
    const appears = (path: string) => dirname(path) === folder && name?.startsWith(basename(path)) === true;
    // Without a name anything may have changed.
    if (name !== null && names?.has(name) !== true && ![...this.#missing.keys()].some(appears)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), settleMs);
  }

  #look(): void {
    const changed: string[] = [];
    for (const [file, before] of this.#files) {
      const stamp = stampOf(file);
      if (stamp === before.stamp) continue;
      const content = contentOf(file);
      // A file that is gone for a moment is one that is being replaced.
      if (content === undefined) continue;
      const isSame = content === before.content;
      this.#files.set(file, { stamp, content });
      if (!isSame) changed.push(file);
    }
    let hasAppeared = false;
    for (const [path, before] of this.#missing) {
      const now = similarTo(path);
      if (now === before) continue;
      this.#missing.set(path, now);
      hasAppeared = true;
    }
    if (changed.length > 0 || hasAppeared) this.#onChange(changed);
  }
}

function identityOf(folder: string): string | undefined {
  try {
    const { dev, ino } = statSync(folder);
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

function stampOf(file: string): string {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(file, { bigint: true });
    return [dev, ino, size, mtimeNs, ctimeNs].join(':');
  } catch {
    return '';
  }
}

function contentOf(file: string): string | undefined {
  try {
    return createHash('sha1').update(readFileSync(file)).digest('base64');
  } catch {
    return undefined;
  }
}

function similarTo(path: string): string {
  try {
    return readdirSync(dirname(path))
      .filter((name) => name.startsWith(basename(path)))
      .sort()
      .join('/');
  } catch {
    return '';
  }
}
