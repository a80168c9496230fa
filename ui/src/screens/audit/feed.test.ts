import { describe, expect, it } from 'vitest';
import type { Msg } from '#ui/host';
import { Feed, KEPT, PAGE, type View } from './feed';

type Query = Msg<'AuditQuery'>;
type Page = Msg<'AuditPage'>;

/** A log of `size` entries; entry n was written n seconds after 1970 and matches a text filter where n is a multiple of it. */
class Log {
  size: number;
  asked: Query[] = [];
  /** Entries that one search looks at. */
  slice = Infinity;
  gate: Promise<void> | undefined;
  fail = false;

  constructor(size: number) {
    this.size = size;
  }

  readonly page = async (query: Query): Promise<Page> => {
    this.asked.push(query);
    const head = this.size;
    await this.gate;
    if (this.fail) throw { code: 'x', message: 'no', causes: [], help: '' };
    const step = Number(query.text ?? 1);
    const until = query.until ? Date.parse(query.until) / 1000 : Infinity;
    const limit = query.limit ?? 100;
    const up = query.after != null;
    const entries: Page['entries'] = [];
    let seq = up ? (query.after ?? 0) : (query.before ?? head + 1);
    let looked = 0;
    let stopped = false;
    for (;;) {
      seq += up ? 1 : -1;
      if (seq < 1 || seq > head) break;
      if (seq % step !== 0 || seq >= until) {
        looked += 1;
        if (looked > this.slice) {
          stopped = true;
          break;
        }
        continue;
      }
      if (entries.length === limit) return { entries, more: true, head };
      entries.push({ seq, prev: '', mac: '', entry: { seq, at: new Date(seq * 1000).toISOString(), kind: 'k', outcome: 'ok', detail: {} } });
    }
    return stopped ? { entries, more: true, looked_to: seq, head } : { entries, more: false, head };
  };

  readonly time = (seq: number): Promise<number> => Promise.resolve(seq * 1000);
}

function setup(size: number) {
  const log = new Log(size);
  const views: View[] = [];
  const feed = new Feed(log, (view) => views.push(view));
  const view = (): View => views.at(-1) as View;
  const seqs = (): number[] => view().rows.map((row) => row.seq);
  /** The rows are without gaps, and not too many. */
  const check = (step = 1): void => {
    const { rows } = view();
    expect(rows.findIndex((row, n) => n > 0 && row.seq !== (rows[n - 1]?.seq ?? 0) - step)).toBe(-1);
    expect(rows.length).toBeLessThanOrEqual(KEPT);
  };
  return { log, views, feed, view, seqs, check };
}

describe('paging', () => {
  it('goes through the whole log and back, with few entries in memory and no gap', async () => {
    const { feed, view, seqs, check } = setup(10_000);
    await feed.open({});
    expect(seqs()[0]).toBe(10_000);
    const place = new Map<number, number>();
    /** Each row keeps its place in the endless list, whatever comes before it or goes. */
    const places = (): void => {
      const moved = view().rows.filter((row, n) => (place.get(row.seq) ?? view().first + n) !== view().first + n);
      expect(moved).toEqual([]);
      view().rows.forEach((row, n) => place.set(row.seq, view().first + n));
    };
    while (view().older) {
      await feed.older();
      check();
      places();
    }
    expect(seqs().at(-1)).toBe(1);
    expect(view().newer).toBe(true);
    while (view().newer) {
      await feed.newer();
      check();
      places();
    }
    expect(seqs()[0]).toBe(10_000);
    expect(place.size).toBe(10_000);
    expect(view().older).toBe(true);
  });

  it('begins at the oldest entry and ends at the newest', async () => {
    const { feed, view, seqs, check } = setup(450);
    await feed.open({}, 'oldest');
    expect(seqs()).toEqual(Array.from({ length: PAGE }, (_, n) => PAGE - n));
    while (view().newer) await feed.newer();
    check();
    expect(seqs()[0]).toBe(450);
    expect(view().older).toBe(false);
  });

  it('begins before a time and goes both ways', async () => {
    const { feed, view, seqs, check } = setup(1000);
    await feed.open({}, { before: 501_000 });
    expect(seqs()[0]).toBe(500);
    expect([view().newer, view().older]).toEqual([true, true]);
    await feed.newer();
    await feed.older();
    check();
    expect([seqs()[0], seqs().at(-1)]).toEqual([700, 101]);
  });

  it('an empty log is empty, and takes what comes', async () => {
    const { log, feed, view, seqs } = setup(0);
    await feed.open({});
    expect(view()).toMatchObject({ rows: [], older: false, newer: false, busy: undefined });
    log.size = 2;
    await feed.tail();
    expect(seqs()).toEqual([2, 1]);
  });

  it('asks once however often it is scrolled', async () => {
    const { log, feed } = setup(1000);
    await feed.open({});
    await Promise.all([feed.older(), feed.older(), feed.older()]);
    expect(log.asked).toHaveLength(2);
  });

  it('forgets the answer to what is asked no more', async () => {
    const { log, feed, seqs } = setup(1000);
    let open = (): void => undefined;
    log.gate = new Promise((resolve) => (open = resolve));
    const first = feed.open({ text: '7' });
    const second = feed.open({ text: '10' });
    open();
    await Promise.all([first, second]);
    expect(seqs().every((seq) => seq % 10 === 0)).toBe(true);
  });
});

describe('failures', () => {
  it('are shown, do not loop, and can be tried again', async () => {
    const { log, feed, view, seqs } = setup(500);
    await feed.open({});
    log.fail = true;
    await feed.older();
    expect(view().fault?.code).toBe('x');
    expect(seqs()).toHaveLength(PAGE);
    await feed.older();
    expect(log.asked).toHaveLength(2);
    log.fail = false;
    await feed.resume();
    expect(view().fault).toBeUndefined();
    expect(seqs()).toHaveLength(2 * PAGE);
  });

  it('of the first page are tried again from the beginning', async () => {
    const { log, feed, view, seqs } = setup(5);
    log.fail = true;
    await feed.open({});
    expect(view()).toMatchObject({ busy: undefined, fault: { code: 'x' } });
    log.fail = false;
    await feed.resume();
    expect(seqs()).toEqual([5, 4, 3, 2, 1]);
  });
});

describe('searches', () => {
  it('go on by themselves until a page is found, and say how far they looked', async () => {
    const { log, views, feed, view, seqs } = setup(2000);
    log.slice = 100;
    await feed.open({ text: '500' });
    expect(seqs()).toEqual([2000, 1500, 1000, 500]);
    expect(view()).toMatchObject({ older: false, busy: undefined, searched: undefined });
    expect(views.some((v) => v.searched?.time === (v.searched?.seq ?? NaN) * 1000)).toBe(true);
    // Found entries are shown before the search is over.
    expect(views.some((v) => v.busy && v.rows.length === 2)).toBe(true);
  });

  it('can be stopped and gone on with, and find each entry once', async () => {
    const { log, feed, view, seqs } = setup(2000);
    log.slice = 100;
    let asked = 0;
    const inner = log.page;
    Object.assign(log, {
      page: async (query: Query) => {
        asked += 1;
        if (asked === 3) feed.stop();
        return inner(query);
      },
    });
    await feed.open({ text: '500' });
    expect(view()).toMatchObject({ busy: undefined, older: true, searched: { stopped: true } });
    await feed.older();
    expect(asked).toBe(3);
    await feed.resume();
    expect(seqs()).toEqual([2000, 1500, 1000, 500]);
  });
});

describe('the live tail', () => {
  it('shows what comes at once where the newest entry is in view', async () => {
    const { log, feed, view, seqs } = setup(300);
    await feed.open({});
    log.size = 303;
    await feed.tail();
    expect(seqs().slice(0, 4)).toEqual([303, 302, 301, 300]);
    expect(view()).toMatchObject({ fresh: 0, first: -3, head: 303 });
  });

  it('moves nothing that is read, and counts', async () => {
    const { log, feed, view, seqs, check } = setup(300);
    await feed.open({});
    feed.atTop = false;
    log.size = 312;
    await feed.tail();
    expect(view()).toMatchObject({ fresh: 12, freshMore: false, first: 0 });
    expect(seqs()[0]).toBe(300);
    log.size = 313;
    await feed.tail();
    expect(view().fresh).toBe(13);
    expect(feed.takeFresh()).toBe(true);
    expect(seqs()[0]).toBe(313);
    expect(view()).toMatchObject({ fresh: 0, first: -13 });
    check();
  });

  it('begins anew where too many came', async () => {
    const { log, feed, view } = setup(300);
    await feed.open({});
    feed.atTop = false;
    log.size = 1000;
    await feed.tail();
    expect(view()).toMatchObject({ fresh: PAGE, freshMore: true });
    expect(feed.takeFresh()).toBe(false);
  });

  it('counts only what matches', async () => {
    const { log, feed, view } = setup(300);
    await feed.open({ text: '10' });
    feed.atTop = false;
    log.size = 325;
    await feed.tail();
    expect(view().fresh).toBe(2);
  });

  it('counts where the window lies in the past, and begins anew for it', async () => {
    const { log, feed, view, seqs, check } = setup(1000);
    await feed.open({}, { before: 501_000 });
    log.size = 1005;
    await feed.tail();
    expect(view().fresh).toBe(5);
    expect(feed.takeFresh()).toBe(false);
    while (view().newer) await feed.newer();
    check();
    expect(seqs()[0]).toBe(1005);
    expect(view().fresh).toBe(0);
  });
});
