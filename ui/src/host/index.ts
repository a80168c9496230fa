// The only way from the screens to the host.

import { link } from '#link';
import type { CommandName, DeskEvent, Fault, Reply, Request } from './contract';

export type { CommandName, DeskEvent, Fault, Link, Msg, Reply, Request } from './contract';

/** Runs a command. Always rejects with a {@link Fault}. */
export async function call<N extends CommandName>(
  name: N,
  ...request: Request<N> extends undefined ? [] : [Request<N>]
): Promise<Reply<N>> {
  try {
    return (await link.send(name, request[0])) as Reply<N>;
  } catch (error) {
    throw faultOf(error);
  }
}

/** Calls the listener with each event of the host. Resolves once none is missed any more, with a function that ends it. */
export function follow(listener: (event: DeskEvent) => void): Promise<() => void> {
  return link.listen(listener);
}

/** Makes a fault of whatever was thrown. */
export function faultOf(error: unknown): Fault {
  if (isFault(error)) return error;
  const said = error instanceof Error ? error.message : String(error);
  return {
    code: 'desktop.failed',
    message: 'the desktop could not do this',
    causes: said ? [said] : [],
    help: 'try again; if it stays, quit Keyward and start it anew',
  };
}

function isFault(error: unknown): error is Fault {
  return (
    typeof error === 'object' &&
    error !== null &&
    'code' in error &&
    typeof error.code === 'string' &&
    'message' in error &&
    typeof error.message === 'string' &&
    'causes' in error &&
    Array.isArray(error.causes) &&
    'help' in error
  );
}
