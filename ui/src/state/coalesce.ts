/**
 * Makes a trigger for an asynchronous job: at most one runs, and however often it is triggered meanwhile, it runs once more
 * `gapMs` after that. The promise of a trigger settles when a job that began after it has ended. The job must not reject.
 */
export function coalesce(job: () => Promise<void>, gapMs = 0): () => Promise<void> {
  let running: Promise<void> | undefined;
  let pending: Promise<void> | undefined;
  const start = (): Promise<void> => {
    running = job().finally(() => {
      running = undefined;
    });
    return running;
  };
  return () => {
    if (pending) return pending;
    if (!running) return start();
    pending = running
      .then(() => (gapMs > 0 ? new Promise<void>((done) => setTimeout(done, gapMs)) : undefined))
      .then(() => {
        pending = undefined;
        return start();
      });
    return pending;
  };
}
