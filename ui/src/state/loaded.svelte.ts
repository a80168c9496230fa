import { faultOf, type Fault } from '#ui/host';
import { coalesce } from './coalesce';

/** Something read from the host: loading, ready or failed. What was read before stays while it is read anew. */
export class Loaded<T> {
  /** What was read; undefined until then. */
  value = $state.raw<T>();
  /** Why the last reading failed. */
  fault = $state.raw<Fault>();
  /** A reading goes on. */
  busy = $state(false);
  /** Reads anew; at most one reading goes on and one waits. Never rejects. */
  readonly reload: () => Promise<void>;

  /** Reads nothing yet. */
  constructor(read: () => Promise<T>) {
    this.reload = coalesce(async () => {
      this.busy = true;
      try {
        this.value = await read();
        this.fault = undefined;
      } catch (error) {
        this.fault = faultOf(error);
      } finally {
        this.busy = false;
      }
    });
  }

  /** Forgets what was read. */
  clear(): void {
    this.value = undefined;
    this.fault = undefined;
  }
}
