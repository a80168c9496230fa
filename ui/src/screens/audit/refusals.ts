// Why the gateway refuses calls, and what helps: the broker's own words. A test compares them with its table of errors.

/** The code of a refusal → what is wrong, and what helps. */
export const REFUSALS: Readonly<Record<string, { message: string; help: string }>> = {
  'vault.locked': {
    message: 'the vault is locked',
    help: 'run `keyward unlock`, or open Keyward from the tray',
  },
  'audit.broken': {
    message: 'the audit log does not match what was recorded before',
    help: 'look at it with `keyward audit verify`; to go on all the same: `keyward audit accept-break --reason R`',
  },
  'audit.unavailable': {
    message: 'the audit entry could not be recorded, so nothing was delivered',
    help: 'mend what the cause names, then try again',
  },
  'gateway.request_malformed': {
    message: 'the request is not HTTP/1.1 as the gateway takes it',
    help: 'mend the client, or the proxy before it, in what the cause names',
  },
  'gateway.path_refused': {
    message: 'the path or query of the request is refused',
    help: 'send it in its plain form, without what the cause names',
  },
  'gateway.not_allowed': {
    message: 'the profile does not let this method and path through',
    help: 'if the run must have it, name it in the profile: [gateway] only = ["METHOD /path"]',
  },
  'gateway.token_unknown': {
    message: 'the request has no run token that is known',
    help: 'start the program with `keyward run`, and remove keys from its own settings that win over those of the run',
  },
  'gateway.run_unverified': {
    message: 'the program of the run is not verified',
    help: 'start it with `keyward run`; `keyward ps` shows what runs',
  },
  'gateway.caller_outside': {
    message: 'the process that calls does not belong to the run',
    help: 'start it inside the run; for containers of your own user set [gateway] containers = true in the profile',
  },
  'gateway.cross_site': {
    message: 'the request is one of a web page, or names another host',
    help: 'call the address that the run was given, from a program and not from a browser',
  },
  'gateway.body_too_large': {
    message: 'the body is larger than the gateway can sign',
    help: 'send less than 32 MiB',
  },
  'gateway.upstream_unreachable': {
    message: 'the API cannot be reached',
    help: 'check the network and the host that the cause names, then try again',
  },
  'gateway.upstream_certificate': {
    message: 'the certificate of the API is not trusted',
    help: 'check the host in the profile and the certificates of this system; a proxy that opens TLS must be trusted by the system',
  },
  'lease.revoked': {
    message: 'the credential was taken back',
    help: 'to ask for it anew, start the program again with `keyward run`',
  },
  'lease.expired': {
    message: 'the time of the credential is over',
    help: 'to ask for it anew, start the program again with `keyward run`',
  },
  'lease.over': {
    message: 'the run that the token belongs to is over',
    help: 'start the program again with `keyward run`',
  },
};
