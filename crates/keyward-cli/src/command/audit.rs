//! `keyward audit`: look at the log, verify it, take it elsewhere.

use super::Outcome;
use crate::args::Context;
use crate::broker::{Broker, add_query};
use crate::export::{self, Trailer};
use crate::input::ProofArgs;
use crate::out::Stop;
use crate::table::{count, pairs, table};
use crate::{csv, out, time};
use clap::ValueEnum;
use ed25519_dalek::VerifyingKey;
use keyward_api::{AcceptBreakRequest, AuditEntryMsg, AuditPage, AuditQuery, ExportRequest, VerifyAnswer};
use keyward_client::{Client, Start};
use keyward_diag::{Code, Fault, plain};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most entries that one request gives.
const PAGE: u32 = 1_000;

/// Longest text that is searched for, in bytes.
const TEXT_MAX_BYTES: usize = 200;

/// Longest line of an export, in bytes.
const LINE_MAX_BYTES: usize = 256 * 1024;

/// Look at the log, verify it, export it
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List entries, the newest last
    List {
        #[command(flatten)]
        filter: Box<Filter>,
        /// At most so many entries
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = limit)]
        limit: u32,
    },
    /// Show one entry
    Show {
        /// Number of the entry
        #[arg(value_parser = entry_number)]
        seq: u64,
    },
    /// Print new entries as they come
    Follow {
        #[command(flatten)]
        filter: Box<Filter>,
    },
    /// Verify the whole log, or an exported file
    ///
    /// Exits with 7 when it does not verify. With --file and --pubkey neither a vault nor a broker is needed.
    Verify {
        /// Exported log in JSON Lines
        #[arg(long, requires = "pubkey")]
        file: Option<PathBuf>,
        /// Public export key of the vault that wrote the file, as `audit export` named it
        #[arg(long, value_name = "KEY", requires = "file", value_parser = export::public_key)]
        pubkey: Option<VerifyingKey>,
    },
    /// Write the log to standard output or into a file; asks for the passphrase
    Export {
        #[command(flatten)]
        filter: Box<Filter>,
        /// File to write; there must be none
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Form of the output
        #[arg(long, default_value = "jsonl")]
        format: Format,
        #[command(flatten)]
        proof: ProofArgs,
    },
    /// Record that a break in the log is known, and go on; asks for the passphrase
    AcceptBreak {
        /// Why it is accepted; recorded in the log
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        proof: ProofArgs,
    },
}

/// Which entries; all filters must hold.
#[derive(Debug, clap::Args)]
pub(crate) struct Filter {
    /// Only entries of this app
    #[arg(long)]
    app: Option<String>,
    /// Only entries of this profile
    #[arg(long)]
    profile: Option<String>,
    /// Only entries of this project folder
    #[arg(long, value_name = "DIR")]
    project: Option<String>,
    /// Only entries of this kind, such as lease.issued, or of a family, such as lease
    #[arg(long)]
    kind: Option<String>,
    /// Only entries with this outcome: ok, refused or failed
    #[arg(long)]
    outcome: Option<String>,
    /// Only entries of this run
    #[arg(long)]
    run: Option<String>,
    /// Not before this time: RFC 3339, a date, or how long ago such as 2h
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time::moment)]
    until: Option<String>,
    /// Only entries that contain these words, in upper or lower case
    #[arg(long, value_name = "WORDS", value_parser = words)]
    text: Option<String>,
}

/// The number of an entry, whether there is one or not.
fn entry_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write the number of an entry, such as 7".to_owned())
}

/// How many entries, at least one.
fn limit(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "write a number that is at least 1".to_owned())
}

/// Words to search for; what cannot be found is told before anything is asked.
fn words(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("give at least one word".to_owned()),
        text if text.len() > TEXT_MAX_BYTES => Err(format!("give at most {TEXT_MAX_BYTES} bytes")),
        text => Ok(text.to_owned()),
    }
}

/// Forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON Lines with a signed trailer
    Jsonl,
    /// Comma-separated values, which nothing signs
    Csv,
}

impl Filter {
    fn query(self) -> AuditQuery {
        let Self { app, profile, project, kind, outcome, run, since, until, text } = self;
        AuditQuery { app, profile, project, kind, outcome, run, since, until, text, ..AuditQuery::default() }
    }
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::List { filter, limit } => list(context, filter.query(), limit),
            Self::Show { seq } => show(context, seq),
            Self::Follow { filter } => follow(context, filter.query()),
            Self::Verify { file: Some(file), pubkey: Some(key) } => verify_file(context, &file, &key),
            Self::Verify { .. } => verify(context),
            Self::Export { filter, out, format, proof } => {
                export(context, filter.query(), out.as_deref(), format, &proof)
            }
            Self::AcceptBreak { reason, proof } => accept_break(context, reason, &proof),
        }
    }
}

fn list(context: &Context, mut query: AuditQuery, limit: u32) -> Outcome {
    let mut broker = Broker::open(context)?;
    let mut entries: Vec<AuditEntryMsg> = Vec::new();
    let older = loop {
        let left = limit - u32::try_from(entries.len()).unwrap_or(limit).min(limit);
        query.limit = Some(left.min(PAGE));
        let path = page_path(&query);
        let page: AuditPage = broker.unlocked(|client| client.get(&path))?;
        let reached = page.looked_to.or(page.entries.last().map(|e| e.seq));
        entries.extend(page.entries);
        let goes_on = reached.is_some_and(|seq| query.before.is_none_or(|before| seq < before));
        query.before = reached;
        if !page.more || !goes_on || entries.len() >= limit as usize {
            break page.more;
        }
    };
    entries.truncate(limit as usize);
    entries.reverse();
    if context.json {
        out::json(&entries)?;
    } else if entries.is_empty() {
        out::say("no entry fits; without filters `keyward audit list` shows the newest");
    } else {
        let header = ["seq", "time (utc)", "kind", "outcome", "app", "profile", "detail"];
        out::text(&table(&header, &entries.iter().map(row).collect::<Vec<_>>()))?;
        if older {
            out::say(&format!("these are the newest {}; `--limit N` shows more", entries.len()));
        }
    }
    Ok(0)
}

fn show(context: &Context, seq: u64) -> Outcome {
    let path = format!("/v1/audit/entries/{seq}");
    let found: AuditEntryMsg = Broker::open(context)?.unlocked(|client| client.get(&path))?;
    if context.json {
        out::json(&found)?;
        return Ok(0);
    }
    let mut lines = vec![("seq", found.seq.to_string())];
    if let Value::Object(fields) = &found.entry {
        let others = fields.iter().filter(|(name, _)| *name != "seq" && *name != "detail");
        lines.extend(others.map(|(name, value)| (name.as_str(), word(value))));
        if let Some(Value::Object(detail)) = fields.get("detail") {
            for (name, value) in detail {
                match calls(name, value) {
                    Some(calls) => lines.extend(calls.iter().map(|call| ("call", whole_call(call)))),
                    None => lines.push((name.as_str(), word(value))),
                }
            }
        }
    }
    lines.extend([("prev", found.prev.clone()), ("mac", found.mac.clone())]);
    out::text(&pairs(&lines))?;
    Ok(0)
}

fn follow(context: &Context, mut query: AuditQuery) -> Outcome {
    let mut broker = Broker::open(context)?;
    let newest: AuditPage = broker.unlocked(|client| client.get("/v1/audit?limit=1"))?;
    query.limit = Some(PAGE);
    let (mut after, mut known) = (newest.head, newest.head);
    // A broker that was stopped is not started again by somebody who only watches.
    let watcher = Client::connect(broker.places(), Start::Never)?;
    // This id is of no broker, so that the stream begins with `reset` and no entry before it can be missed.
    let mut waits = false;
    for event in watcher.events(Some("0")) {
        if !matches!(event?.name.as_str(), "audit" | "reset") {
            continue;
        }
        loop {
            query.after = Some(after);
            let page: AuditPage = match broker.client().get(&page_path(&query)) {
                Err(fault) if fault.code == Code::VaultLocked => {
                    if !waits {
                        out::say("the vault is locked; entries are shown when it is open again");
                    }
                    waits = true;
                    break;
                }
                page => page?,
            };
            waits = false;
            for entry in &page.entries {
                if context.json { out::json(entry)? } else { out::text(&line(entry))? }
            }
            let last = page.looked_to.or(page.entries.last().map(|entry| entry.seq)).unwrap_or(after);
            if page.head < known {
                // A backup was restored: the log is shorter, and its newest entry says so.
                after = after.min(page.head.saturating_sub(1));
            } else if page.more {
                after = last;
            } else {
                // What the filters left out up to the head of the page before is not looked at again. The head of this
                // page may be newer than its entries.
                after = after.max(last).max(known);
            }
            let settled = !page.more && page.head >= known;
            known = page.head;
            if settled {
                break;
            }
        }
    }
    Ok(0)
}

fn verify(context: &Context) -> Outcome {
    let answer: VerifyAnswer = Broker::open(context)?.unlocked(|client| client.get("/v1/audit/verify"))?;
    let exit = if answer.ok { 0 } else { Code::AuditBroken.exit() };
    if context.json {
        out::json(&answer)?;
        return Ok(exit);
    }
    let anchor = match answer.anchor.seq {
        Some(seq) => format!("{} at entry {seq}", answer.anchor.state),
        None => answer.anchor.state.clone(),
    };
    let head = answer.head.map_or("none".to_owned(), |h| format!("entry {}, mac {}", h.seq, h.mac));
    let seen = answer.anchor.seen.join(", ");
    let verdict = if answer.ok { "ok: every entry verifies" } else { "broken: the log does not verify" };
    out::text(&pairs(&[
        ("verdict", verdict.to_owned()),
        ("entries", answer.entries.to_string()),
        ("head", head),
        ("anchor", if seen.is_empty() { anchor } else { format!("{anchor} (seen: {seen})") }),
    ]))?;
    if !answer.problems.is_empty() {
        let accepted = |yes: bool| if yes { "accepted" } else { "" }.to_owned();
        let rows: Vec<_> =
            answer.problems.into_iter().map(|p| vec![p.seq.to_string(), p.kind, accepted(p.accepted)]).collect();
        out::text(&format!("\n{}", table(&["entry", "problem", "accepted"], &rows)))?;
    }
    for gap in answer.gaps {
        let before = gap.anchor_seq.map_or(String::new(), |seq| format!("; the log had reached entry {seq} before"));
        out::text(&format!("entry {}: a backup was restored that ended with entry {}{before}", gap.seq, gap.from))?;
    }
    for note in answer.notes {
        out::say(&plain(&note, 400));
    }
    if exit != 0 {
        out::say(Code::AuditBroken.help());
    }
    Ok(exit)
}

fn verify_file(context: &Context, path: &Path, key: &VerifyingKey) -> Outcome {
    let file =
        File::open(path).map_err(|e| Fault::new(Code::FileUnreadable).cause(format!("{}: {e}", path.display())))?;
    let report = export::verify(BufReader::with_capacity(1 << 16, file), key)?;
    if context.json {
        out::json(&report)?;
        return Ok(if report.ok { 0 } else { Code::AuditFileInvalid.exit() });
    }
    if report.ok {
        let filtered = if report.filtered { "; entries were left out by filters" } else { "" };
        let head = report.head.map_or(String::new(), |h| format!(", the last one is entry {}", h.seq));
        out::text(&format!("ok: {} as exported{head}{filtered}", entries(report.entries)))?;
        return Ok(0);
    }
    let mut fault = Fault::new(Code::AuditFileInvalid);
    for problem in &report.problems {
        fault = fault.cause(match problem.seq {
            0 => format!("the file as a whole: {}", problem.kind),
            seq => format!("entry {seq}: {}", problem.kind),
        });
    }
    Err(fault.into())
}

fn export(context: &Context, query: AuditQuery, out: Option<&Path>, format: Format, proof: &ProofArgs) -> Outcome {
    let mut broker = Broker::open(context)?;
    // A vault that is locked is opened first, where somebody can be asked.
    broker.unlocked(|client| client.get::<AuditPage>("/v1/audit?limit=1"))?;
    let request = ExportRequest { query, proof: proof.proof(context, broker.places())? };
    let body = serde_json::to_vec(&request).map_err(|e| Fault::new(Code::Internal).cause(e))?;
    let mut sink = Sink::open(out)?;
    let mut lines = Lines::default();
    let mut written = 0_u64;
    let mut trailer: Option<Trailer> = None;
    if format == Format::Csv {
        sink.write(csv::header().as_bytes());
    }
    let answer = broker.into_client().stream("/v1/audit/export", Some(&body), |piece| {
        lines.feed(piece, |line| {
            trailer = export::trailer(line);
            written += u64::from(trailer.is_none());
            match format {
                Format::Jsonl => sink.write(line),
                Format::Csv if trailer.is_some() => {}
                Format::Csv => {
                    let entry = serde_json::from_slice(line)
                        .map_err(|_| Fault::new(Code::BrokerVersion).cause("a line of the export is no entry"))?;
                    sink.write(csv::line(&entry).as_bytes());
                }
            }
            Ok(())
        })?;
        // Any error ends the stream; which one it was stands in the sink.
        if sink.failed.is_some() { Err(Code::FileUnreadable.into()) } else { Ok(()) }
    });
    let cut = || Fault::new(Code::BrokerUnreachable).cause("the export ended before its trailer");
    sink.close(answer.and_then(|()| trailer.ok_or_else(cut)).map_err(Stop::from)).map(|trailer| {
        out::say(&format!("{} exported", entries(written)));
        if format == Format::Csv {
            out::say("CSV carries no signature; export JSON Lines for others to verify");
        } else {
            let key = plain(&trailer.key, 80);
            out::say(&format!("signed by {key}; keep this key elsewhere and check the file by it:"));
            out::say(&format!("keyward audit verify --file FILE --pubkey {key}"));
        }
        0
    })
}

fn accept_break(context: &Context, reason: String, proof: &ProofArgs) -> Outcome {
    let mut broker = Broker::open(context)?;
    let request = AcceptBreakRequest { reason, proof: proof.proof(context, broker.places())? };
    broker.unlocked(|client| client.post::<_, ()>("/v1/audit/accept-break", &request))?;
    out::say("the break is accepted and recorded; credentials are delivered again");
    Ok(0)
}

/// Where an export goes. Errors are kept until the end.
struct Sink<'p> {
    file: Option<(File, &'p Path)>,
    failed: Option<Stop>,
}

impl<'p> Sink<'p> {
    fn open(path: Option<&'p Path>) -> Result<Self, Fault> {
        let file = match path {
            Some(path) => {
                let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                Some((opened.map_err(|e| unwritable(path, &e))?, path))
            }
            None => None,
        };
        Ok(Self { file, failed: None })
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            let written = match &mut self.file {
                Some((file, path)) => file.write_all(bytes).map_err(|e| unwritable(path, &e).into()),
                None => out::bytes(bytes),
            };
            self.failed = written.err();
        }
    }

    /// Makes the file durable, or removes it when the export failed.
    fn close<T>(self, answer: Result<T, Stop>) -> Result<T, Stop> {
        let answer = match self.failed {
            Some(stop) => Err(stop),
            None => answer,
        };
        let Some((file, path)) = self.file else { return answer };
        let answer = answer.and_then(|done| match file.sync_all() {
            Ok(()) => Ok(done),
            Err(e) => Err(unwritable(path, &e).into()),
        });
        if answer.is_err() {
            drop(std::fs::remove_file(path));
        }
        answer
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Fault {
    if error.kind() == ErrorKind::AlreadyExists {
        let fault = Fault::new(Code::FileUnreadable).cause(format!("there is a file already: {}", path.display()));
        return fault.help("name another file");
    }
    Fault::new(Code::FileUnreadable).cause(format!("{}: {error}", path.display()))
}

/// Cuts a stream into lines, line ends included.
#[derive(Default)]
struct Lines {
    waiting: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, piece: &[u8], mut each: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, tail) = rest.split_at(end + 1);
            rest = tail;
            if self.waiting.is_empty() {
                each(line)?;
            } else {
                self.waiting.extend_from_slice(line);
                each(&self.waiting)?;
                self.waiting.clear();
            }
        }
        self.waiting.extend_from_slice(rest);
        if self.waiting.len() > LINE_MAX_BYTES {
            return Err(Fault::new(Code::BrokerVersion).cause("a line of the export is too long"));
        }
        Ok(())
    }
}

fn page_path(query: &AuditQuery) -> String {
    let mut path = "/v1/audit".to_owned();
    if let Ok(Value::Object(fields)) = serde_json::to_value(query) {
        for (field, value) in &fields {
            add_query(&mut path, field, &word(value));
        }
    }
    path
}

fn row(entry: &AuditEntryMsg) -> Vec<String> {
    let field = |name: &str| word(&entry.entry[name]);
    let mut detail = detail(&entry.entry["detail"]);
    if detail.chars().count() > 60 {
        detail = format!("{}…", detail.chars().take(60).collect::<String>());
    }
    let at = time::clock(&field("at"));
    vec![entry.seq.to_string(), at, field("kind"), field("outcome"), field("app"), field("profile"), detail]
}

fn line(entry: &AuditEntryMsg) -> String {
    let cells: Vec<_> = row(entry).iter().filter(|cell| !cell.is_empty()).map(|cell| plain(cell, 100)).collect();
    cells.join("  ")
}

fn detail(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            // The calls come first, where a line is cut they are what is left.
            let called = fields.iter().filter_map(|(name, value)| calls(name, value)).map(called);
            let others = fields.iter().filter(|(name, value)| calls(name, value).is_none());
            called.chain(others.map(|(name, value)| format!("{name}={}", word(value)))).collect::<Vec<_>>().join(" ")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => word(value),
    }
}

/// The calls through the gateway that an entry lists, where this is the field with them.
fn calls<'v>(name: &str, value: &'v Value) -> Option<&'v [Value]> {
    value.as_array().map(Vec::as_slice).filter(|calls| name == "uses" && calls.iter().all(Value::is_object))
}

/// Calls in short: the last of them, and how many there are besides.
fn called(calls: &[Value]) -> String {
    let Some(last) = calls.last() else { return "no call".to_owned() };
    match calls.len() - 1 {
        0 => call(last),
        n => format!("{} and {n} more", call(last)),
    }
}

/// A call in short: `POST api.anthropic.com/v1/messages 200`.
fn call(call: &Value) -> String {
    let field = |name: &str| word(&call[name]);
    let status = match call["status"].as_u64() {
        Some(0) => " without an answer".to_owned(),
        Some(status) => format!(" {status}"),
        None => String::new(),
    };
    format!("{} {}{}{status}", field("method"), field("host"), field("path"))
}

/// A call with all that is known of it.
fn whole_call(one: &Value) -> String {
    let mut text = format!("{}  {}", time::clock(&word(&one["at"])), call(one));
    for (name, what) in [("sent", "B sent"), ("received", "B received"), ("ms", "ms"), ("usd", "USD")] {
        if !one[name].is_null() {
            text.push_str(&format!(", {} {what}", word(&one[name])));
        }
    }
    for (name, what) in [("request_id", "request "), ("ended", ""), ("number", "call ")] {
        if !one[name].is_null() {
            text.push_str(&format!(", {what}{}", word(&one[name])));
        }
    }
    text
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn entries(n: u64) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), "entry").replace("entrys", "entries")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_cut_wherever_the_pieces_end() {
        let text = b"one\ntwo\n\nthree";
        for step in 1..text.len() {
            let (mut lines, mut got) = (Lines::default(), Vec::new());
            for piece in text.chunks(step) {
                lines
                    .feed(piece, |line| {
                        got.push(line.to_vec());
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(got, [&b"one\n"[..], b"two\n", b"\n"], "step {step}");
            assert_eq!(lines.waiting, b"three");
        }
        assert!(Lines::default().feed(&vec![b'x'; LINE_MAX_BYTES + 1], |_| Ok(())).is_err());
    }

    #[test]
    fn filters_become_a_query_and_nothing_else() {
        let query = AuditQuery { app: Some("a&limit=9".into()), limit: Some(5), ..AuditQuery::default() };
        let path = page_path(&query);
        assert!(
            path.starts_with("/v1/audit?") && path.contains("limit=5") && path.contains("app=a%26limit%3D9"),
            "{path}"
        );
        assert_eq!(path.matches('&').count(), 1);
    }

    #[test]
    fn calls_are_told_and_not_shown_as_json() {
        let one = json!({
            "at": "2026-11-21T08:00:00.5Z", "method": "POST", "host": "h", "path": "/v1/x", "status": 200, "sent": 2,
            "received": 11, "ms": 7, "request_id": "req_1", "number": 3, "usd": "0.01",
        });
        let open = json!({"at": "2026-11-21T08:00:00Z", "method": "GET", "host": "h", "path": "/", "number": 4});
        let told = |uses: Value| detail(&json!({"count": 1, "process": "exact", "uses": uses}));
        assert_eq!(told(json!([one])), "POST h/v1/x 200 count=1 process=exact");
        assert_eq!(told(json!([open, one])), "POST h/v1/x 200 and 1 more count=1 process=exact");
        assert_eq!(told(json!([])), "no call count=1 process=exact");
        assert_eq!(told(json!(7)), "count=1 process=exact uses=7");
        assert_eq!(
            whole_call(&one),
            "2026-11-21 08:00:00  POST h/v1/x 200, 2 B sent, 11 B received, 7 ms, 0.01 USD, request req_1, call 3"
        );
        assert_eq!(whole_call(&open), "2026-11-21 08:00:00  GET h/, call 4");
        let cut = json!({"method": "GET", "host": "h", "path": "/", "status": 0, "ended": "the client went away"});
        assert_eq!(whole_call(&cut).trim_start(), "GET h/ without an answer, the client went away");
    }

    #[test]
    fn a_row_is_short_and_survives_missing_fields() {
        let entry = |entry| AuditEntryMsg { seq: 7, entry, prev: String::new(), mac: String::new() };
        let cells =
            row(&entry(json!({"at": "2026-11-21T08:00:00.5Z", "kind": "k", "detail": {"a": "x".repeat(500), "n": 1}})));
        assert_eq!(cells[1], "2026-11-21 08:00:00");
        assert_eq!(cells[6].chars().count(), 61);
        assert_eq!(row(&entry(json!("no object"))).len(), 7);
        assert!(!line(&entry(json!({"app": "a\nb"}))).contains('\n'));
        assert_eq!((entries(1), entries(2)), ("1 entry".into(), "2 entries".into()));
    }
}
