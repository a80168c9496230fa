// The window of entries that the list shows: a run of matching entries without gaps, newest first, read page by page. Pure but for
// the source that it is given.

import { faultOf, type Fault, type Msg } from '#ui/host';
import { coalesce } from '#ui/state/coalesce';
import { readEntry, type Entry } from './entry';

/** Entries of one page. */
export const PAGE = 200;
/** Entries that are kept at most; beyond, those furthest from what is read are forgotten and read again when needed. */
export const KEPT = 3000;

/** Where pages come from. */
export interface Source {
  page(query: Msg<'AuditQuery'>): Promise<Msg<'AuditPage'>>;
  /** When an entry was written, in milliseconds since 1970. */
  time(seq: number): Promise<number>;
}

/** Where a window begins: at the newest or oldest entry that matches, or with the newest before a time. */
export type Begin = 'newest' | 'oldest' | { before: number };

/** What the list shows. Replaced, never changed. */
export interface View {
  rows: readonly Entry[];
  /** Place of the first row in an endless list: it falls by one for each row that is put before it. */
  first: number;
  /** There may be older or newer ones than the rows. */
  older: boolean;
  newer: boolean;
  /** What is being read. */
  busy?: 'begin' | 'older' | 'newer';
  fault?: Fault;
  /** A search goes on or was stopped: how far back it has looked. */
  searched?: { seq: number; time?: number; stopped: boolean };
  /** Matching entries that came since and are not among the rows. */
  fresh: number;
  /** There are more of them than were counted. */
  freshMore: boolean;
  /** Number of the newest entry of the log. */
  head: number;
}

const EMPTY: View = { rows: [], first: 0, older: false, newer: false, fresh: 0, freshMore: false, head: 0 };

/** Reads the log for one list. */
export class Feed {
  /** The list shows its newest row: what comes is put before it at once. */
  atTop = true;

  readonly #source: Source;
  readonly #changed: (view: View) => void;
  #view: View = EMPTY;
  #query: Msg<'AuditQuery'> = {};
  #epoch = 0;
  #stopped = false;
  /** Where reading goes on: entries below `#bottom`, above `#top`. */
  #bottom: number | undefined;
  #top = 0;
  #fresh: Entry[] = [];
  readonly #tail: () => Promise<void>;

  /** Reads nothing yet. `changed` is called with each new view. */
  constructor(source: Source, changed: (view: View) => void) {
    this.#source = source;
    this.#changed = changed;
    this.#tail = coalesce(() => this.#readTail());
  }

  /** Begins anew with other filters or at another place. What was asked before is forgotten. */
  async open(query: Msg<'AuditQuery'>, begin: Begin = 'newest'): Promise<void> {
    const epoch = ++this.#epoch;
    this.#query = query;
    this.#fresh = [];
    this.#stopped = false;
    this.#bottom = undefined;
    this.#top = 0;
    this.atTop = begin === 'newest';
    // The rows of before stay until the first ones of the new window are there, so that nothing flickers.
    this.#show({ busy: 'begin', fault: undefined, searched: undefined, fresh: 0, freshMore: false });
    if (begin === 'oldest') {
      this.#replace([], { older: false, newer: true });
      await this.#readNewer(epoch, 'begin');
    } else {
      const until = begin === 'newest' ? undefined : begin.before;
      await this.#readOlder(epoch, 'begin', until);
    }
  }

  /** Reads the next older page, if there is one. */
  async older(): Promise<void> {
    if (this.#view.busy || this.#view.fault || !this.#view.older || this.#stopped) return;
    await this.#readOlder(this.#epoch, 'older');
  }

  /** Reads the next newer page, if there is one. */
  async newer(): Promise<void> {
    if (this.#view.busy || this.#view.fault || !this.#view.newer) return;
    await this.#readNewer(this.#epoch, 'newer');
  }

  /** Looks for what came since. Never rejects. */
  tail(): Promise<void> {
    return this.#tail();
  }

  /** Puts what came since before the rows; gives false where the window must begin anew for it. */
  takeFresh(): boolean {
    if (this.#view.newer || this.#view.freshMore) return false;
    const fresh = this.#fresh;
    this.#fresh = [];
    this.#prepend(fresh, { fresh: 0, freshMore: false });
    return true;
  }

  /** Stops a search. */
  stop(): void {
    this.#stopped = true;
    const { searched } = this.#view;
    if (searched) this.#show({ searched: { ...searched, stopped: true } });
  }

  /** Goes on with a search that was stopped, or after a failure. */
  async resume(): Promise<void> {
    this.#stopped = false;
    this.#show({ fault: undefined });
    if (this.#view.rows.length === 0 && this.#bottom === undefined) await this.open(this.#query);
    else await this.older();
  }

  /** Forgets what is asked and answers nothing more. */
  close(): void {
    this.#epoch += 1;
  }

  #show(change: Partial<View>): void {
    this.#view = { ...this.#view, ...change };
    this.#changed(this.#view);
  }

  #replace(rows: Entry[], change: Partial<View>): void {
    this.#show({ ...change, rows, first: 0 });
  }

  #append(entries: Entry[], change: Partial<View>): void {
    const last = this.#view.rows.at(-1)?.seq ?? Infinity;
    let rows = [...this.#view.rows, ...entries.filter((entry) => entry.seq < last)];
    let { first } = this.#view;
    let newer = change.newer ?? this.#view.newer;
    const over = rows.length - KEPT;
    if (over > 0) {
      rows = rows.slice(over);
      first += over;
      newer = true;
      this.#top = rows[0]?.seq ?? this.#top;
      this.#fresh = [];
    }
    this.#show({ ...change, rows, first, newer });
  }

  #prepend(entries: Entry[], change: Partial<View>): void {
    const top = this.#view.rows[0]?.seq ?? 0;
    const added = entries.filter((entry) => entry.seq > top);
    let rows = [...added, ...this.#view.rows];
    let older = change.older ?? this.#view.older;
    if (rows.length > KEPT) {
      rows = rows.slice(0, KEPT);
      older = true;
      this.#bottom = rows.at(-1)?.seq;
    }
    this.#show({ ...change, rows, older, first: this.#view.first - added.length });
  }

  async #readOlder(epoch: number, busy: 'begin' | 'older', until?: number): Promise<void> {
    this.#show({ busy, fault: undefined });
    let fill = PAGE;
    let begin = busy === 'begin';
    try {
      for (;;) {
        const query: Msg<'AuditQuery'> = { ...this.#query, limit: PAGE };
        if (this.#bottom !== undefined) query.before = this.#bottom;
        if (until !== undefined) {
          const limit = new Date(until).toISOString();
          query.until = query.until && query.until < limit ? query.until : limit;
        }
        const page = await this.#source.page(query);
        if (epoch !== this.#epoch) return;
        const entries = page.entries.map(readEntry);
        fill -= entries.length;
        const looked = page.looked_to ?? undefined;
        this.#bottom = looked ?? entries.at(-1)?.seq ?? this.#bottom;
        const going = looked !== undefined && page.more && fill > 0 && !this.#stopped;
        const change: Partial<View> = {
          older: page.more,
          busy: going ? busy : undefined,
          head: page.head,
          searched: looked === undefined || !page.more ? undefined : this.#searched(epoch, looked),
        };
        if (begin) {
          begin = false;
          this.#top = until === undefined ? page.head : (entries[0]?.seq ?? this.#bottom ?? 0);
          this.#replace(entries, { ...change, newer: until !== undefined && this.#top < page.head });
        } else {
          this.#append(entries, change);
        }
        if (!going) return;
      }
    } catch (error) {
      this.#failed(epoch, error);
    }
  }

  async #readNewer(epoch: number, busy: 'begin' | 'newer'): Promise<void> {
    this.#show({ busy, fault: undefined });
    try {
      for (;;) {
        const page = await this.#source.page({ ...this.#query, after: this.#top, limit: PAGE });
        if (epoch !== this.#epoch) return;
        const entries = page.entries.map(readEntry).reverse();
        const looked = page.looked_to ?? undefined;
        this.#top = page.more ? (looked ?? entries[0]?.seq ?? this.#top) : Math.max(page.head, entries[0]?.seq ?? 0);
        const going = page.more && looked !== undefined && entries.length === 0;
        this.#prepend(entries, {
          newer: page.more,
          busy: going ? busy : undefined,
          head: page.head,
          ...(page.more ? {} : { fresh: 0, freshMore: false }),
        });
        if (!going) return;
      }
    } catch (error) {
      this.#failed(epoch, error);
    }
  }

  async #readTail(): Promise<void> {
    const epoch = this.#epoch;
    if (this.#view.busy === 'begin' || this.#view.freshMore) return;
    const attached = !this.#view.newer;
    // A window that is not at the newest entry only counts: its rows have a gap to what comes.
    let after = attached ? this.#top : Math.max(this.#top, this.#view.head);
    try {
      for (;;) {
        const page = await this.#source.page({ ...this.#query, after, limit: PAGE });
        // While it was asked the window may have begun anew or lost its newest rows.
        if (epoch !== this.#epoch || attached === this.#view.newer) return;
        const entries = page.entries.map(readEntry).reverse();
        const looked = page.looked_to ?? undefined;
        after = page.more ? (looked ?? entries[0]?.seq ?? after) : Math.max(page.head, entries[0]?.seq ?? 0);
        if (attached) this.#top = after;
        if (attached && this.atTop && !page.more && this.#fresh.length === 0) {
          this.#prepend(entries, { head: page.head });
        } else {
          if (attached) this.#fresh = [...entries, ...this.#fresh];
          const fresh = this.#view.fresh + entries.length;
          this.#show({ head: page.more ? after : page.head, fresh, freshMore: fresh > 0 && page.more && looked === undefined });
        }
        if (!page.more || this.#view.freshMore) return;
      }
    } catch {
      // The next event asks again; a broker that is gone is told by the shell.
    }
  }

  #searched(epoch: number, seq: number): View['searched'] {
    this.#source.time(seq).then(
      (time) => {
        const { searched } = this.#view;
        if (epoch === this.#epoch && searched && searched.seq <= seq) this.#show({ searched: { ...searched, time } });
      },
      () => undefined, // Without the time the number of the entry is shown.
    );
    return { seq, time: this.#view.searched?.time, stopped: this.#stopped };
  }

  #failed(epoch: number, error: unknown): void {
    if (epoch === this.#epoch) this.#show({ busy: undefined, fault: faultOf(error) });
  }
}
