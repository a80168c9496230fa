import { call } from '#ui/host';
import { Doing } from '#ui/state/doing.svelte';
import { tell } from '#ui/state/notes.svelte';
import { refresh } from '#ui/state/world.svelte';

/** Starts launchers; a second start waits until the first one was made. */
export class Launching extends Doing {
  /** The launcher that is being started, or was last. */
  name = $state<string>();

  /** Starts it. Gives true when it was started. */
  async launch(name: string): Promise<boolean> {
    if (this.busy) return false;
    this.name = name;
    const done = tell(await this.run(() => call('launch', { name })));
    await refresh();
    return done?.done ?? false;
  }
}
