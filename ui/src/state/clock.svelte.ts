// The broker's clock. It ticks once a second, on the whole second, only while the page is visible and something counts down.

/** Milliseconds of the broker's clock ahead of `performance.now()`. */
let ahead = Date.now() - performance.now();
let watchers = 0;
let timer: ReturnType<typeof setTimeout> | undefined;
let now = $state(Date.now());

const read = (): number => ahead + performance.now();

function tick(): void {
  clearTimeout(timer);
  timer = undefined;
  const time = read();
  now = time;
  if (watchers > 0 && document.visibilityState === 'visible') {
    timer = setTimeout(tick, 1000 - (time % 1000) + 1);
  }
}

document.addEventListener('visibilitychange', tick);

/** The broker's clock as far as this page knows it. */
export const clock = {
  /** Milliseconds since 1970; changes once a second while {@link watch} is in force. */
  get now() {
    return now;
  },
  /** The same without waiting for a tick. */
  read,
  /** Sets the clock: `broker` is what the broker's clock showed at `then` of `performance.now()`. */
  set(broker: number, then: number): void {
    if (!Number.isFinite(broker)) return;
    ahead = broker - then;
    tick();
  },
  /** Makes the clock tick until the returned function is called: `$effect(() => clock.watch())`. */
  watch(): () => void {
    watchers += 1;
    if (watchers === 1) tick();
    return () => {
      watchers -= 1;
      if (watchers === 0) {
        clearTimeout(timer);
        timer = undefined;
      }
    };
  },
};
