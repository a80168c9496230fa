import type { Msg } from '#ui/host/contract';

/** The name by which people know an app: that of the installed agent with this program, else the app as it is. */
export function appName(app: string, agents: readonly Msg<'AgentMsg'>[]): string {
  return agents.find((agent) => agent.id === app || fileName(agent.path) === app || agent.path === app)?.name ?? app;
}

function fileName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
