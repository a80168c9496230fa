// The host in the product. The only file that knows Tauri.

import { invoke } from '@tauri-apps/api/core';
import { listen } from '@tauri-apps/api/event';
import type { DeskEvent, Link } from './contract';

export const link: Link = {
  send: (name, request) => invoke(name, request === undefined ? {} : { request }),
  listen: (heard) => listen<DeskEvent>('desk', (event) => heard(event.payload)),
};
