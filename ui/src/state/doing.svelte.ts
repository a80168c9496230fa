import { faultOf, type Fault } from '#ui/host';

/** An action of the person: idle, going on, or failed. A second start while one goes on does nothing. */
export class Doing {
  /** It goes on. */
  busy = $state(false);
  /** Why the last one failed. */
  fault = $state.raw<Fault>();

  /** Runs the action; its failure stands in `fault`. Gives what it gave, or undefined when it failed or one goes on. */
  async run<T>(action: () => Promise<T>): Promise<T | undefined> {
    if (this.busy) return undefined;
    this.busy = true;
    this.fault = undefined;
    try {
      return await action();
    } catch (error) {
      this.fault = faultOf(error);
      return undefined;
    } finally {
      this.busy = false;
    }
  }
}
