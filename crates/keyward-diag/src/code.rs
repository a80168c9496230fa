//! The table. One row a code; a row is never reused for another meaning.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The words of one code.
pub(crate) struct Row {
    pub(crate) message: &'static str,
    pub(crate) help: &'static str,
    pub(crate) exit: u8,
}

macro_rules! codes {
    ($($variant:ident $name:literal $exit:literal $message:literal $help:literal)*) => {
        /// A stable name of one kind of failure.
        ///
        /// Grouped by what failed; the words, the help and the exit code of each stand in the table of this module and in
        /// `crates/ERRORS.md`, which is generated from it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code { $(#[doc = concat!("`", $name, "`: ", $message, ".")] $variant,)* }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The dotted name.
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }

            pub(crate) fn row(self) -> Row {
                match self { $(Self::$variant => Row { message: $message, help: $help, exit: $exit },)* }
            }
        }
    };
}

codes! {
    // The vault.
    VaultAbsent "vault.absent" 1 "there is no vault yet" "make one with `keyward setup`, which also moves in the credentials that it finds, or with `keyward init` alone"
    VaultExists "vault.exists" 1 "there is a vault already" "use it, or name another home with KEYWARD_HOME"
    VaultLocked "vault.locked" 3 "the vault is locked" "run `keyward unlock`, or open Keyward from the tray"
    VaultWrongPassphrase "vault.wrong_passphrase" 1 "the passphrase does not open the vault" "try again; with a recovery key: `keyward unlock --recovery`"
    VaultWrongRecovery "vault.wrong_recovery" 1 "the recovery key does not open the vault" "check that it is the key shown for this vault; it begins with AGE-SECRET-KEY-1"
    VaultWeakPassphrase "vault.weak_passphrase" 1 "the passphrase is too weak" "use at least 12 characters, or four words that do not belong together"
    VaultUnlockWait "vault.unlock_wait" 1 "too many wrong passphrases" "wait as long as the cause says, then try again"
    VaultSlotsDamaged "vault.slots_damaged" 7 "the slot file is damaged" "put back vault.slots from a backup: `keyward vault restore FILE`"
    VaultSlotsTampered "vault.slots_tampered" 7 "the slot file was changed by somebody who did not hold the vault key" "put back vault.slots from a backup: `keyward vault restore FILE`"
    VaultKdfBounds "vault.kdf_bounds" 7 "the slot file asks for a key derivation outside of the bounds" "the file is not one that Keyward wrote: put back a backup with `keyward vault restore FILE`"
    VaultDamaged "vault.damaged" 7 "the database of the vault is damaged" "put back a backup: `keyward vault restore FILE`"
    VaultSealDamaged "vault.seal_damaged" 7 "a sealed secret does not verify" "store the secret anew with `keyward secret set NAME`, or put back a backup"
    VaultSchemaNewer "vault.schema_newer" 1 "the vault was written by a newer Keyward" "install that version or a later one"
    VaultSchemaOlder "vault.schema_changed" 7 "a migration of the vault is not the one that this program knows" "install the version that wrote this vault"
    VaultFolderUnsafe "vault.folder_unsafe" 1 "a folder of the vault can be reached by others" "close it with the chmod that the cause names"
    VaultDiskFull "vault.disk_full" 1 "the disk is full" "free some space, then try again; nothing was lost"
    VaultIo "vault.io" 1 "a file of the vault could not be read or written" "mend what the cause names, then try again"
    VaultInUse "vault.in_use" 5 "another broker holds this vault" "stop the other one with `keyward broker stop`, in the terminal session that started it"
    VaultSlotUnknown "vault.slot_unknown" 1 "there is no such slot" "see them with `keyward vault slot list`"
    VaultSlotExists "vault.slot_exists" 1 "there is such a slot already" "remove it first with `keyward vault slot remove`"
    VaultSlotNeeded "vault.slot_needed" 1 "the passphrase slot cannot be removed" "change the passphrase with `keyward vault rekey`"
    VaultBackupDamaged "vault.backup_damaged" 7 "the backup file is damaged or not a backup" "use another copy"
    KeyringAbsent "keyring.absent" 1 "no keyring service answers" "start one (gnome-keyring, KWallet), or unlock with the passphrase"
    KeyringLocked "keyring.locked" 1 "the keyring is locked" "unlock the keyring of your desktop, or unlock with the passphrase"
    KeyringMissing "keyring.missing" 1 "the keyring holds no key for this vault" "unlock with the passphrase, then `keyward vault slot remove keyring` and add it anew"

    // The log.
    AuditBroken "audit.broken" 7 "the audit log does not match what was recorded before" "look at it with `keyward audit verify`; to go on all the same: `keyward audit accept-break --reason R`"
    AuditUnavailable "audit.unavailable" 1 "the audit entry could not be recorded, so nothing was delivered" "mend what the cause names, then try again"
    AuditFileInvalid "audit.file_invalid" 7 "the exported log does not verify" "export it anew from the vault; if it still fails, it was changed after the export"
    AuditNotBroken "audit.not_broken" 1 "there is no break to accept" "nothing to do: `keyward audit verify` shows the state"
    AuditUnknown "audit.unknown" 1 "there is no such entry" "see what there is with `keyward audit list`"

    // Profiles and secrets.
    ProfileUnknown "profile.unknown" 1 "there is no such profile" "see them with `keyward profile list`"
    ProfileExists "profile.exists" 1 "there is such a profile already" "change it with `keyward profile edit NAME --from FILE`"
    ProfileIncomplete "profile.incomplete" 1 "the profile lacks required fields" "add the fields that the cause names; `keyward profile kinds` lists all"
    ProfileInvalid "profile.invalid" 1 "the profile is not valid" "mend what the cause names"
    ProfileInUse "profile.in_use" 1 "a launcher uses the profile" "change or remove the launcher first; what the profile gave can be taken back with `keyward revoke NAME`"
    ProfileNotNamed "profile.not_named" 1 "which profile is not clear" "name one with -p PROFILE"
    SecretUnknown "secret.unknown" 1 "there is no such secret" "see them with `keyward secret list`"
    SecretInvalid "secret.invalid" 1 "the secret cannot be stored" "mend what the cause names"
    SecretInUse "secret.in_use" 1 "a profile uses the secret" "remove or change the profile first"
    LauncherUnknown "launcher.unknown" 1 "there is no such launcher" "see them with `keyward launcher list`"
    LauncherExists "launcher.exists" 1 "there is such a launcher already" "change it with `keyward launcher edit NAME`, or take another name"
    LauncherInvalid "launcher.invalid" 1 "the launcher is not valid" "mend what the cause names"
    LauncherSecret "launcher.secret" 1 "the command holds a stored secret" "leave it out: the profiles of the launcher hand it over"
    LauncherOther "launcher.other" 1 "the run is not what the launcher says" "start it with `keyward launch NAME`"
    NameInvalid "name.invalid" 1 "the name cannot be used" "use 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"

    // Issuing and delivering.
    IssuerFailed "issuer.failed" 6 "the issuer made no credential" "mend what the cause names; `keyward profile test NAME` tries it alone"
    IssuerTimeout "issuer.timeout" 6 "the issuer took too long" "try again, or raise `timeout` in the profile"
    IssuerAnswer "issuer.answer_invalid" 6 "the answer of the issuer is not a credential" "it must print JSON such as {\"token\": \"…\", \"expires_in\": 3600}"
    IssuerRefused "issuer.refused" 6 "the issuer refused the exchange" "mend what the causes name, then try it alone with `keyward profile test NAME`"
    IssuerUnreachable "issuer.unreachable" 6 "the issuer cannot be reached" "check the network and the host that the cause names, then try again"
    IssuerBusy "issuer.busy" 6 "the issuer does not serve requests at the moment" "wait as long as the cause says, then try again"
    IdentityUnreadable "identity.unreadable" 1 "the assertion cannot be read" "mend what the cause names: the identity source of the profile"
    IdentityInvalid "identity.invalid" 1 "what the identity source gave is not an assertion" "it must give one JWT: three base64url parts with dots between them"
    IdentityFailed "identity.failed" 6 "the identity source gave no assertion" "mend what the cause names; `keyward profile test NAME` tries it alone"
    IdentityNeeded "identity.needed" 1 "the assertion stands in a variable that only the caller has" "set the variable that the cause names, then run the command from that shell"
    IdentitySpent "identity.spent" 6 "the assertion can be presented once, and it was" "wait until the identity provider has issued another one, or let a `command` source fetch one for each exchange"
    DeliveryVariable "delivery.variable_refused" 1 "the variable changes how programs load or where they send data" "deliver to a variable that only holds the credential"
    DeliveryConflict "delivery.conflict" 1 "two profiles deliver to the same variable" "leave one of them out, or name another variable in its [delivery]"
    DeliveryImpossible "delivery.impossible" 1 "the issuer or the program cannot take this delivery" "leave out --deliver and `mode`: the strongest that works is taken"
    DeliveryValue "delivery.value" 1 "the credential cannot stand in an environment variable" "deliver it as a file: [delivery] mode = \"file\""
    DeliveryFolder "delivery.folder" 1 "there is no private memory-backed folder for file deliveries" "set XDG_RUNTIME_DIR to a tmpfs folder of yours with mode 0700"
    RunNotFound "run.not_found" 127 "the program was not found" "check its name and PATH"
    RunNotExecutable "run.not_executable" 126 "the program cannot be executed" "check its mode and format"
    RunPrivileged "run.privileged" 1 "the program runs with rights of another user or with capabilities" "add --allow-privileged if it must have the credential"
    RunUnknown "run.unknown" 1 "there is no such run or profile in use" "see them with `keyward ps`"
    RunNotStarted "run.not_started" 1 "the program was not started" "start it in a terminal, which says why: `keyward launch NAME`"
    RunGone "run.gone" 1 "the run was taken back before it started" "start it again"

    // Who may do what.
    PolicyDenied "policy.denied" 4 "this is not allowed here" "ask the person at the keyboard to do it, outside of the run"
    PassphraseNeeded "passphrase.needed" 4 "this needs the passphrase, and there is nobody to ask" "run it in a terminal, or give --passphrase-stdin or --passphrase-fd N"
    ApprovalNeeded "approval.needed" 4 "a person must allow this first" "answer in Keyward's window, or in a terminal of yours with the command that the cause names; `--wait` waits for the answer"
    ApprovalDenied "approval.denied" 4 "a person said no" "ask the person; the same request is not shown again for a while"
    ApprovalUnanswered "approval.unanswered" 4 "nobody answered in time, which is a no" "ask again when somebody is there"
    ApprovalUnknown "approval.unknown" 1 "there is no such request" "see them with `keyward approvals`"
    ApprovalOver "approval.over" 1 "the request is answered already, or nobody waits for it" "see it with `keyward approvals --all`; whoever still wants it asks again"
    ApprovalChanged "approval.changed" 1 "the request is another one than was shown" "look at it again with `keyward approvals`, then answer"
    ApprovalEarly "approval.too_early" 1 "the answer came sooner than anybody can read" "read the request, then answer"
    ApprovalFlood "approval.flood" 4 "too many requests wait for a person" "wait until some are answered: `keyward approvals` lists them"
    GrantUnknown "grant.unknown" 1 "there is no such grant" "see them with `keyward grant list`"
    GrantInvalid "grant.invalid" 1 "the grant is not valid" "mend what the cause names"
    FenceReached "fence.reached" 4 "a limit of the profile is reached" "let a person allow more: `keyward approvals` shows the request"
    FenceUncounted "fence.uncounted" 4 "the fence of the profile cannot judge this call" "let the program ask in another way, as the cause says, or take `models` and `usd` out of [fence] in the profile"
    ProjectInvalid "project.invalid" 1 "the keyward.toml of the project is not valid" "mend what the cause names"
    ProjectUnreviewed "project.unreviewed" 4 "the keyward.toml of the project is new or was changed" "look at what changed and allow it: run the command in a terminal, or answer in Keyward's window"
    PeerRefused "peer.refused" 4 "the broker does not know who is asking" "run the command directly, not through a descriptor or process of another program"

    // The gateway.
    GatewayRequest "gateway.request_malformed" 1 "the request is not HTTP/1.1 as the gateway takes it" "mend the client, or the proxy before it, in what the cause names"
    GatewayPath "gateway.path_refused" 1 "the path or query of the request is refused" "send it in its plain form, without what the cause names"
    GatewayNotAllowed "gateway.not_allowed" 4 "the profile does not let this method and path through" "if the run must have it, name it in the profile: [gateway] only = [\"METHOD /path\"]"
    GatewayToken "gateway.token_unknown" 4 "the request has no run token that is known" "start the program with `keyward run`, and remove keys from its own settings that win over those of the run"
    GatewayUnverified "gateway.run_unverified" 4 "the program of the run is not verified" "start it with `keyward run`; `keyward ps` shows what runs"
    GatewayCaller "gateway.caller_outside" 4 "the process that calls does not belong to the run" "start it inside the run; for containers of your own user set [gateway] containers = true in the profile"
    GatewayCrossSite "gateway.cross_site" 4 "the request is one of a web page, or names another host" "call the address that the run was given, from a program and not from a browser"
    GatewayBody "gateway.body_too_large" 1 "the body is larger than the gateway can sign" "send less than 32 MiB"
    GatewayUpstream "gateway.upstream_unreachable" 6 "the API cannot be reached" "check the network and the host that the cause names, then try again"
    GatewayCertificate "gateway.upstream_certificate" 6 "the certificate of the API is not trusted" "check the host in the profile and the certificates of this system; a proxy that opens TLS must be trusted by the system"
    LeaseRevoked "lease.revoked" 4 "the credential was taken back" "to ask for it anew, start the program again with `keyward run`"
    LeaseExpired "lease.expired" 4 "the time of the credential is over" "to ask for it anew, start the program again with `keyward run`"
    LeaseOver "lease.over" 4 "the run that the token belongs to is over" "start the program again with `keyward run`"

    // Broker and command line.
    Busy "broker.busy" 6 "the broker has too much to do" "try again in a moment"
    BrokerUnreachable "broker.unreachable" 5 "the broker cannot be reached" "see `keyward status`; start it anew with `keyward broker restart`"
    BrokerStart "broker.start" 5 "the broker did not start" "mend what the cause names"
    BrokerVersion "broker.version" 5 "the broker is of another version" "restart it with `keyward broker restart`"
    BrokerSocket "broker.socket_untrusted" 5 "the socket folder cannot be trusted, so nothing was sent" "mend what the cause names: the folder must be yours alone (mode 0700)"
    RequestInvalid "request.invalid" 1 "the request is not understood" "mend what the cause names"
    RequestTooLarge "request.too_large" 1 "the request is too large" "send less than 64 KiB"
    InputNeeded "input.needed" 1 "an answer is needed, and there is nobody to ask" "run it in a terminal, or give the answer on standard input as `--help` says"
    Usage "usage" 2 "the command line is not understood" "see `keyward --help`"
    ConfigInvalid "config.invalid" 1 "a setting is not valid" "mend what the cause names"
    DesktopEnvironment "desktop.environment" 1 "the environment would let other programs into the desktop" "start it without the variables that the causes name"
    DesktopPrompt "desktop.prompt" 1 "another prompt of Keyward is open" "answer or close it, then try again"
    DesktopDisplay "desktop.display" 1 "there is no display to show a window on" "start it in a graphical session, where WAYLAND_DISPLAY or DISPLAY is set; without one use `keyward`"
    FileUnreadable "file.unreadable" 1 "a file could not be read or written" "mend what the cause names"
    PlatformUnsupported "platform.unsupported" 1 "Keyward does not run on this system yet" "use Linux 6.5 or later; macOS and Windows are not written yet"
    Internal "internal" 70 "a fault of Keyward itself" "please report it, with what `keyward status` shows; no secret is in it"
}

impl Code {
    /// The code of a dotted name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.name() == name)
    }

    /// Exit status of the command line.
    pub fn exit(self) -> u8 {
        self.row().exit
    }

    /// The sentence of the table.
    pub fn message(self) -> &'static str {
        self.row().message
    }

    /// The remedy of the table.
    pub fn help(self) -> &'static str {
        self.row().help
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    /// Reads a dotted name; one that this version does not know becomes [`Code::Internal`], so that an older client can
    /// still show the words of a newer broker.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(d)?).unwrap_or(Self::Internal))
    }
}
