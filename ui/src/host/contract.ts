// The commands of the desktop and their types, as the generated document has them.

import type { components, paths } from './types';

type Schemas = components['schemas'];

/** A type of the contract by its name. */
export type Msg<Name extends keyof Schemas> = Schemas[Name];

/** Name of a command. */
export type CommandName = keyof { [P in keyof paths as P extends `/command/${infer N}` ? N : never]: true };

type Operation<N extends CommandName> = paths[`/command/${N}`] extends { post: infer O } ? O : never;

/** What a command takes; `undefined` for a command without a request. */
export type Request<N extends CommandName> =
  Operation<N> extends { requestBody: { content: { 'application/json': infer R } } } ? R : undefined;

/** What a command answers. */
export type Reply<N extends CommandName> =
  Operation<N> extends { responses: { 200: { content: { 'application/json': infer R } } } } ? R : never;

/** What the host tells unasked. The generator drops the tag of the variant that names another type, so it is added here. */
export type DeskEvent =
  | Extract<Msg<'DeskEvent'>, { type: 'broker' | 'show' }>
  | ({ type: 'connection' } & Msg<'Connection'>);

/** An error: what happened, why, and what to do. */
export type Fault = Msg<'Fault'>;

/** A way to reach the host. */
export interface Link {
  /** Sends a command. Rejects with a {@link Fault} or with anything else that went wrong. */
  send(name: CommandName, request: unknown): Promise<unknown>;
  /** Hears what the host tells unasked. Resolves once nothing is missed any more, with what ends it. */
  listen(heard: (event: DeskEvent) => void): Promise<() => void>;
}
