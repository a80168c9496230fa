// The development host: the same commands over loopback HTTP, for tests in a plain browser. Never packaged.

import type { DeskEvent, Link } from './contract';

export const link: Link = {
  async send(name, request) {
    const answer = await fetch(`/command/${name}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(request ?? null),
    });
    const body: unknown = await answer.json();
    if (!answer.ok) throw body;
    return body;
  },
  listen: (heard) =>
    new Promise((resolve) => {
      const source = new EventSource('/events');
      let opened = false;
      source.onmessage = (message: MessageEvent<string>) => heard(JSON.parse(message.data) as DeskEvent);
      source.onopen = () => {
        // Events between two connections are lost.
        if (opened) heard({ type: 'broker', name: 'reset', data: null });
        opened = true;
        resolve(() => source.close());
      };
    }),
};
