// What the whole UI knows of the broker: read at start and anew after each event.

import { untrack } from 'svelte';
import { call, faultOf, follow, type DeskEvent, type Fault, type Msg } from '#ui/host';
import { clock } from './clock.svelte';
import { coalesce } from './coalesce';
import { jumped, type Look } from './jump';
import { go } from './route.svelte';

let overview = $state.raw<Msg<'Overview'>>();
let fault = $state.raw<Fault>();
let up = $state(true);
/** Connections gained and lost so far. */
let turns = 0;
let agents = $state.raw<Msg<'AgentMsg'>[]>([]);
// Derived, so that what depends on them is not run anew at each overview.
const vault = $derived(overview?.status.vault.state);
const open = $derived(up && vault === 'unlocked');

/** The broker as this page knows it. */
export const world = {
  /** The last overview; stays while the broker is away. */
  get overview() {
    return overview;
  },
  /** Why there is no fresh overview. */
  get fault() {
    return fault;
  },
  /** The broker answers. */
  get up() {
    return up;
  },
  /** State of the vault; undefined until it is known. */
  get vault() {
    return vault;
  },
  /** The vault is open and the broker answers: everything can be read. */
  get open() {
    return open;
  },
  /** Agents installed on this machine, for their names. */
  get agents() {
    return agents;
  },
};

/** Reads the overview anew. At most one reading goes on and one waits. Never rejects. */
export const refresh: () => Promise<void> = coalesce(async () => {
  const sent = performance.now();
  const turn = turns;
  try {
    const fresh = await call('overview');
    const received = performance.now();
    overview = fresh;
    // An answer from before the connection was lost does not say that there is one.
    if (turn === turns) {
      fault = undefined;
      up = true;
    }
    clock.set(Date.parse(fresh.now), (sent + received) / 2);
  } catch (error) {
    fault = faultOf(error);
  }
}, 60);

/** Asks the host to find or start the broker, then reads everything anew. */
export async function reconnect(): Promise<void> {
  try {
    heard({ type: 'connection', ...(await call('connect')) });
  } catch (error) {
    fault = faultOf(error);
  }
}

type BrokerEvent = Extract<DeskEvent, { type: 'broker' }>;
const listeners = new Set<(event: BrokerEvent) => void>();

/** Calls the listener with each event of the broker (and with a `reset` whenever events may have been missed) until the
 * returned function is called: `$effect(() => onBroker(…))`. */
export function onBroker(listener: (event: BrokerEvent) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

let stale = false;
let look: Look = { wall: Date.now(), steady: performance.now() };

function reread(): void {
  for (const listener of listeners) listener({ type: 'broker', name: 'reset', data: null });
  void refresh();
}

function heard(event: DeskEvent): void {
  if (event.type === 'show') {
    go(event.screen, { about: event.about ?? undefined });
    return;
  }
  if (event.type === 'connection') {
    turns += 1;
    up = event.up;
    fault = event.up ? undefined : faultOf(event.fault);
    if (event.up) later(reread);
    return;
  }
  later(() => {
    for (const listener of listeners) listener(event);
    void refresh();
  });
}

/** Runs it when the page is visible: at once, or a full reading when it becomes so. */
function later(job: () => void): void {
  if (document.visibilityState === 'visible') job();
  else stale = true;
}

function compareClocks(): void {
  const next = { wall: Date.now(), steady: performance.now() };
  const moved = jumped(look, next);
  look = next;
  if (moved || (stale && document.visibilityState === 'visible')) {
    stale = false;
    reread();
  }
}

/** Begins to follow the host. Called once. */
export async function start(): Promise<void> {
  document.addEventListener('visibilitychange', compareClocks);
  addEventListener('focus', compareClocks);
  addEventListener('online', compareClocks);
  $effect.root(() => {
    // Wherever something counts down the clocks are compared at each tick.
    $effect(() => {
      void clock.now;
      untrack(compareClocks);
    });
  });
  call('agents').then(
    (found) => (agents = found),
    () => undefined, // Without the list the raw names are shown.
  );
  try {
    await follow(heard);
  } catch (error) {
    fault = faultOf(error);
  }
  await refresh();
}
