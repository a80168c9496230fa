//! The log: pages, what it says as a whole, verification, export, and going on after a break.

use crate::broker::{Broker, entry_of, facts};
use crate::peer::Peer;
use crate::platform::now;
use bytes::Bytes;
use jiff::Timestamp;
use keyward_api::{
    AcceptBreakRequest, AnchorMsg, AppUseMsg, AuditEntryMsg, AuditPage, AuditQuery, AuditSummary, AuditSummaryQuery,
    AuditVerifyQuery, BarMsg, CountMsg, ExportRequest, GapMsg, HeadMsg, PastRunMsg, PastRunsPage, PastRunsQuery,
    ProblemMsg, SpanMsg, VerifyAnswer,
};
use keyward_core::audit::{Entry, Kind, Outcome};
use keyward_core::{DeliveryMode, Wall};
use keyward_crypto::{ExportKey, ItemRef};
use keyward_diag::{Code, Fault};
use keyward_store::{ByOutcome, Filter, Found, Link, Order, Page, Store, StoreError, Use};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;
/// Bytes of the entries of one page; clients take answers of 8 MiB.
const PAGE_MAX_BYTES: usize = 4 * 1024 * 1024;
const BARS: u32 = 120;
const BARS_MAX: u32 = 500;
const RUNS: u32 = 50;
const RUNS_MAX: u32 = 200;

/// How long one request may keep the store busy with the search of a text.
const PATIENCE: Duration = Duration::from_millis(150);

impl Broker {
    /// The open database, for reading the log.
    async fn log(&self) -> Result<Arc<Store>, Fault> {
        let mut state = self.state_for_request().await?;
        Ok(Arc::clone(&self.unlocked(&mut state)?.store))
    }

    /// One page of the log.
    pub(crate) async fn audit(&self, query: &str) -> Result<AuditPage, Fault> {
        let query: AuditQuery = read_query(query)?;
        let limit = within("limit", query.limit, PAGE, PAGE_MAX)?;
        if query.before.is_some() && query.after.is_some() {
            return Err(Fault::new(Code::RequestInvalid).cause("give either before or after"));
        }
        let order = if query.after.is_some() { Order::OldestFirst } else { Order::NewestFirst };
        let page = Page { after: query.after, before: query.before, order, limit: limit + 1 };
        let filter = filter(&query)?;
        let patience = if filter.text.is_some() { PATIENCE } else { Duration::MAX };
        let store = self.log().await?;
        let Found { mut links, mut looked_to, head } =
            store.search(page, &filter, patience).await.map_err(|e| e.fault())?;
        let fit = fitting(links.iter().map(|link| link.body.len()), limit as usize);
        if fit < links.len() {
            looked_to = None;
        }
        let more = links.len() > fit || looked_to.is_some();
        links.truncate(fit);
        Ok(AuditPage { entries: links.iter().map(message).collect(), more, looked_to, head })
    }

    /// How the log lies in time, and which names it has.
    pub(crate) async fn audit_summary(&self, query: &str) -> Result<AuditSummary, Fault> {
        let query: AuditSummaryQuery = read_query(query)?;
        let most = within("bars", query.bars, BARS, BARS_MAX)?;
        let filter = summary_filter(query)?;
        let store = self.log().await?;
        let summary = store.summary(&filter).await.map_err(|e| e.fault())?;
        let (width, bars) = bars(&summary.hours, i64::from(most));
        let list = |counts: Vec<(String, u64)>| {
            counts.into_iter().map(|(name, count)| CountMsg { name, count }).collect::<Vec<_>>()
        };
        Ok(AuditSummary {
            total: summary.total,
            entries: summary.entries,
            bar_s: width.unsigned_abs() * 3600,
            bars,
            apps: list(summary.apps),
            profiles: list(summary.profiles),
            projects: list(summary.projects),
            kinds: list(summary.kinds),
        })
    }

    /// Which credential each app held and used, last held or used first; at most 1000 deliveries and uses of a pair.
    pub(crate) async fn apps(&self, query: &str) -> Result<Vec<AppUseMsg>, Fault> {
        let query: AuditSummaryQuery = read_query(query)?;
        if query.kind.is_some() || query.outcome.is_some() || query.bars.is_some() {
            let cause = "the filters are app, profile, project, since and until";
            return Err(Fault::new(Code::RequestInvalid).cause(cause));
        }
        let filter = summary_filter(query)?;
        let (store, live) = {
            let mut state = self.state_for_request().await?;
            let store = Arc::clone(&self.unlocked(&mut state)?.store);
            let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
            let mut live: BTreeMap<(String, String), Live> = BTreeMap::new();
            for run in state.runs.values().filter(|run| run.ended.is_none()) {
                for held in run.leases.iter().filter(|held| held.lease.is_live()) {
                    let profile = held.profile.as_str();
                    if is(&filter.app, &run.app) && is(&filter.profile, profile) && is(&filter.project, &run.project) {
                        let pair = live.entry((run.app.clone(), profile.to_owned())).or_default();
                        pair.leases += 1;
                        pair.unseen |= held.lease.mode != DeliveryMode::Gateway;
                    }
                }
            }
            (store, live)
        };
        let kinds = [Kind::CredentialDelivered, Kind::GatewayOpened, Kind::TokenDelivered, Kind::CredentialUsed];
        let uses = store.uses(&kinds, &filter).await.map_err(|e| e.fault())?;
        Ok(table_of_uses(uses, live))
    }

    /// One page of the runs that are over, last ended first.
    pub(crate) async fn runs_past(&self, query: &str) -> Result<PastRunsPage, Fault> {
        let query: PastRunsQuery = read_query(query)?;
        let limit = within("limit", query.limit, RUNS, RUNS_MAX)?;
        let kind = |kind: Kind| Filter { kind: Some(kind.name().to_owned()), ..Filter::default() };
        let page = Page { after: None, before: query.before, order: Order::NewestFirst, limit: limit + 1 };
        let store = self.log().await?;
        let mut ends = store.entries(page, &kind(Kind::RunEnded)).await.map_err(|e| e.fault())?;
        let more = ends.len() > limit as usize;
        ends.truncate(limit as usize);
        let mut runs = Vec::with_capacity(ends.len());
        for end in &ends {
            // One that was tampered with says nothing; verification names it.
            let Ok(entry) = end.entry() else { continue };
            let mut run = past_run(end.seq, &entry);
            if run.started_at.is_none() {
                // Entries of before the end told when the run began.
                let first = Page { after: None, before: Some(end.seq), order: Order::OldestFirst, limit: 1 };
                let of_run = Filter { run: Some(run.run.clone()), ..kind(Kind::RunRequested) };
                let found = store.entries(first, &of_run).await.map_err(|e| e.fault())?;
                if let Some(asked) = found.first().and_then(|link| link.entry().ok()) {
                    run.profiles = names(&asked.detail);
                    run.started_at = Some(asked.at);
                }
            }
            runs.push(run);
        }
        Ok(PastRunsPage { runs, more })
    }

    /// One entry.
    pub(crate) async fn audit_entry(&self, seq: &str) -> Result<AuditEntryMsg, Fault> {
        let seq = seq.parse().map_err(|_| Fault::new(Code::RequestInvalid).cause("an entry has a number"))?;
        let link = self.log().await?.entry(seq).await.map_err(|e| e.fault())?;
        link.as_ref()
            .map(message)
            .ok_or_else(|| Fault::new(Code::AuditUnknown).cause(format!("there is no entry {seq}")))
    }

    /// Verifies the whole log, and every page of the file unless the query leaves that out.
    pub(crate) async fn verify(&self, query: &str) -> Result<VerifyAnswer, Fault> {
        let query: AuditVerifyQuery = read_query(query)?;
        let pages = query.pages.unwrap_or(true);
        let Ok(_turn) = self.verifying.try_lock() else {
            return Err(Fault::new(Code::Busy).cause("the log is being verified"));
        };
        let store = self.log().await?;
        let mut seen = vec!["file".to_owned()];
        if self.check_keyring_anchor(&store).await? {
            seen.push("keyring".to_owned());
        }
        let report = if pages { store.verify().await } else { store.verify_entries().await };
        let report = report.map_err(|e| e.fault())?;
        if !report.ok {
            self.publish_vault("broken");
        }
        let problems = report.problems.iter().map(|p| ProblemMsg {
            seq: p.seq,
            kind: p.kind.name().to_owned(),
            accepted: p.accepted,
        });
        let gaps = report.gaps.iter().map(|g| GapMsg { seq: g.seq, from: g.from, anchor_seq: Some(g.anchor_seq) });
        let mut notes = Vec::new();
        if seen.len() == 1 {
            notes.push(report.note);
        }
        if !pages {
            notes.push(
                "pages of the file that hold no entries were not checked: `keyward audit verify` does".to_owned(),
            );
        }
        if report.more > 0 {
            notes.push(format!("{} more problems are not listed", report.more));
        }
        if report.past_anchor > 0 {
            notes.push(format!(
                "{} entries lie past the anchor and chain: the broker ended unexpectedly",
                report.past_anchor
            ));
        }
        Ok(VerifyAnswer {
            ok: report.ok,
            entries: report.entries,
            head: (report.head.seq > 0).then_some(HeadMsg { seq: report.head.seq, mac: report.head.mac }),
            anchor: AnchorMsg { state: report.anchor.state, seq: report.anchor.seq, seen },
            problems: problems.collect(),
            gaps: gaps.collect(),
            notes,
        })
    }

    /// Records that a person goes on after a break.
    pub(crate) async fn accept_break(&self, peer: &Peer, request: AcceptBreakRequest) -> Result<(), Fault> {
        if request.reason.trim().is_empty() || request.reason.len() > 500 {
            return Err(Fault::new(Code::RequestInvalid).cause("the reason has 1 to 500 bytes"));
        }
        let slots = keyward_store::load_slots(&self.paths).map_err(|e| e.fault())?;
        let key = self.prove_with(slots.clone(), request.proof).await?;
        let mut state = self.state_for_request().await?;
        let open = self.unlocked(&mut state)?;
        self.unchanged(&slots)?;
        let reason = keyward_diag::plain(&request.reason, 500);
        let done = open.store.accept_break(&self.vault_lock, &slots, &key, now().wall.0, &reason, Some(facts(peer)));
        done.await.map_err(|e| e.fault())?;
        open.unanchored.store(true, Ordering::Relaxed);
        self.anchor_to_keyring(open).await;
        self.publish_vault("unlocked");
        Ok(())
    }

    /// Streams the log as JSON Lines: one entry a line, oldest first, then a trailer that others can check.
    ///
    /// The trailer's digest is the SHA-256 of all bytes before it; its signature is Ed25519 over
    /// `"keyward/export/v1" ‖ digest` by the export key of the vault.
    pub(crate) async fn export(
        self: &Arc<Self>,
        peer: &Peer,
        request: ExportRequest,
    ) -> Result<mpsc::Receiver<Bytes>, Fault> {
        let filter = filter(&request.query)?;
        self.prove(request.proof).await?;
        let (store, key, head) = {
            let mut state = self.state_for_request().await?;
            let open = self.unlocked(&mut state)?;
            let key = export_key(open).await?;
            let draft = entry_of(Kind::AuditExported, now(), peer).detail("filtered", filter != Filter::default());
            open.record_delivery(self, Vec::new(), vec![draft]).await?;
            (Arc::clone(&open.store), key, open.store.head().await)
        };
        let (send, receive) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut digest = Sha256::new();
            let (mut count, mut first, mut last) = (0_u64, None, None);
            loop {
                let after = last.as_ref().map(|l: &Link| l.seq).or(Some(0));
                let page = Page { after, before: Some(head.seq + 1), order: Order::OldestFirst, limit: PAGE_MAX };
                // Without a trailer the reader knows that the export broke off.
                let Ok(links) = store.entries(page, &filter).await else { return };
                let mut text = String::new();
                for link in &links {
                    let line = serde_json::to_string(&message(link)).unwrap_or_default();
                    text.push_str(&line);
                    text.push('\n');
                }
                digest.update(text.as_bytes());
                count += links.len() as u64;
                first = first.or(links.first().map(|l| l.seq));
                let Some(end) = links.into_iter().next_back() else { break };
                last = Some(end);
                if send.send(Bytes::from(text)).await.is_err() {
                    return;
                }
            }
            let digest: [u8; 32] = digest.finalize().into();
            let head = last.map(|l| json!({"seq": l.seq, "mac": hex::encode(&l.mac)}));
            let trailer = json!({"trailer": {
                "count": count,
                "first": first,
                "head": head,
                "filtered": filter != Filter::default(),
                "digest": hex::encode(digest),
                "key": key.public().to_string(),
                "signature": hex::encode(key.sign(&digest)),
            }});
            // A reader that went away needs no trailer.
            let _ = send.send(Bytes::from(format!("{trailer}\n"))).await;
        });
        Ok(receive)
    }
}

async fn export_key(open: &crate::broker::Open) -> Result<ExportKey, Fault> {
    let seal = open.seal.as_ref().ok_or(Fault::new(Code::VaultLocked))?;
    let item = open.store.item("export-key", "export").await.map_err(|e| e.fault())?;
    let item = item.ok_or_else(|| Fault::new(Code::VaultDamaged).cause("the export key is not there"))?;
    let reference = ItemRef { id: item.info.id, generation: item.info.generation, kind: &item.info.kind };
    let seed = keyward_crypto::open(seal, &reference, &item.sealed).map_err(|e| StoreError::from(e).fault())?;
    ExportKey::from_seed(&seed).map_err(|e| Fault::new(Code::VaultSealDamaged).cause(e))
}

fn message(link: &Link) -> AuditEntryMsg {
    AuditEntryMsg {
        seq: link.seq,
        entry: serde_json::from_slice(&link.body).unwrap_or(serde_json::Value::Null),
        prev: hex::encode(&link.prev),
        mac: hex::encode(&link.mac),
    }
}

/// Reads the query of a GET route (`application/x-www-form-urlencoded`) as the body of others is read: by the form that the
/// API describes, in which every name stands once.
fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Fault> {
    /// The fields that are numbers.
    const NUMBERS: [&str; 4] = ["before", "after", "limit", "bars"];
    let invalid = |cause: String| Fault::new(Code::RequestInvalid).cause(keyward_diag::plain(&cause, 400));
    let mut fields = Map::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        let value = if name == "pages" {
            Value::from(text.parse::<bool>().map_err(|_| invalid(format!("`{name}` is neither true nor false")))?)
        } else if NUMBERS.contains(&&*name) {
            Value::from(text.parse::<u64>().map_err(|_| invalid(format!("`{name}` is not a number")))?)
        } else {
            Value::from(&*text)
        };
        if fields.insert(name.to_string(), value).is_some() {
            return Err(invalid(format!("`{name}` is given twice")));
        }
    }
    serde_json::from_value(Value::Object(fields)).map_err(|e| invalid(format!("the query: {e}")))
}

/// How many entries of these lengths make a page: at most `limit`, and no more than clients take in one answer; one at least.
fn fitting(lengths: impl Iterator<Item = usize>, limit: usize) -> usize {
    let mut bytes = 0_usize;
    let fit = lengths.take(limit).take_while(|length| {
        let first = bytes == 0;
        bytes += length;
        first || bytes <= PAGE_MAX_BYTES
    });
    fit.count()
}

fn within(field: &str, asked: Option<u32>, usual: u32, most: u32) -> Result<u32, Fault> {
    let number = asked.unwrap_or(usual);
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(Fault::new(Code::RequestInvalid).cause(format!("{field} is between 1 and {most}")))
}

/// Bars of equal width in hours, at most so many, over hours that rise.
fn bars(hours: &[(i64, ByOutcome)], most: i64) -> (i64, Vec<BarMsg>) {
    /// Hours, parts of a day, days, weeks.
    const WIDTHS: [i64; 10] = [1, 2, 3, 6, 12, 24, 48, 168, 336, 672];
    let (Some((first, _)), Some((last, _))) = (hours.first(), hours.last()) else { return (1, Vec::new()) };
    let doubled = std::iter::successors(Some(1344_i64), |width| width.checked_mul(2));
    // The usual widths begin where days do.
    let usual = WIDTHS.into_iter().map(|width| (width, first.div_euclid(width) * width));
    let mut widths = usual.chain(doubled.map(|width| (width, *first)));
    let (width, begin) = widths.find(|(width, begin)| (last - begin) / width < most).unwrap_or((i64::MAX, *first));
    let mut bars: Vec<BarMsg> = (0..=(last - begin) / width)
        .map(|n| Wall((begin + n * width).saturating_mul(3_600_000_000)))
        .map(|at| BarMsg { at: at.to_rfc3339(), ok: 0, refused: 0, failed: 0 })
        .collect();
    for (hour, counts) in hours {
        let at = usize::try_from((hour - begin) / width).ok();
        if let Some(bar) = at.and_then(|at| bars.get_mut(at)) {
            bar.ok += counts.ok;
            bar.refused += counts.refused;
            bar.failed += counts.failed;
        }
    }
    (width, bars)
}

/// The live leases of an app and a profile.
#[derive(Default)]
struct Live {
    leases: u32,
    /// One of them hides its uses: nobody sees who reads a variable or a file.
    unseen: bool,
}

/// Puts deliveries, uses and live leases side by side.
fn table_of_uses(uses: Vec<Use>, live: BTreeMap<(String, String), Live>) -> Vec<AppUseMsg> {
    let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut table: Vec<AppUseMsg> = Vec::new();
    let mut row = |app: String, profile: String, change: &mut dyn FnMut(&mut AppUseMsg)| {
        let place = *places.entry((app.clone(), profile.clone())).or_insert(table.len());
        if place == table.len() {
            table.push(AppUseMsg { app, profile, held: None, used: None, unseen: false, live: 0 });
        }
        if let Some(row) = table.get_mut(place) {
            change(row);
        }
    };
    for Use { kind, app, profile, count, uses, first_at, last_at } in uses {
        let count = if kind == Kind::CredentialUsed { uses } else { count };
        let span = SpanMsg { count, first_at, last_at };
        row(app, profile, &mut |row| match kind {
            Kind::TokenDelivered | Kind::CredentialUsed => row.used = Some(joined(row.used.take(), &span)),
            _ => {
                row.held = Some(joined(row.held.take(), &span));
                row.unseen |= kind == Kind::CredentialDelivered;
            }
        });
    }
    for ((app, profile), Live { leases, unseen }) in live {
        row(app, profile, &mut |row| {
            row.live = leases;
            row.unseen |= unseen;
        });
    }
    table
}

/// Two spans as one. Times are of a fixed width, so that they compare as texts.
fn joined(former: Option<SpanMsg>, span: &SpanMsg) -> SpanMsg {
    let Some(former) = former else { return span.clone() };
    SpanMsg {
        count: former.count + span.count,
        first_at: former.first_at.min(span.first_at.clone()),
        last_at: former.last_at.max(span.last_at.clone()),
    }
}

/// The end of a run, as its entry tells it.
fn past_run(seq: u64, end: &Entry) -> PastRunMsg {
    let text = |name: &str| end.detail.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| end.detail.get(name).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
    PastRunMsg {
        run: end.run.clone().unwrap_or_default(),
        app: end.app.clone().unwrap_or_default(),
        app_verified: end.app_verified.unwrap_or(false),
        project: end.project.clone().unwrap_or_default(),
        started_at: text("started_at"),
        ended_at: end.at.clone(),
        exit: number("exit"),
        signal: number("signal"),
        code: text("code"),
        profiles: names(&end.detail),
        // Absent when it was given something whose uses nobody sees.
        uses: end.detail.get("uses").and_then(Value::as_u64),
        seq,
    }
}

/// The profiles that a detail names.
fn names(detail: &Map<String, Value>) -> Vec<String> {
    let names = detail.get("profiles").and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn summary_filter(query: AuditSummaryQuery) -> Result<Filter, Fault> {
    let AuditSummaryQuery { app, profile, project, kind, outcome, since, until, bars: _ } = query;
    filter(&AuditQuery { app, profile, project, kind, outcome, since, until, ..AuditQuery::default() })
}

fn filter(query: &AuditQuery) -> Result<Filter, Fault> {
    let invalid = |cause: String| Fault::new(Code::RequestInvalid).cause(cause);
    let time = |text: &Option<String>, field: &str| {
        text.as_ref()
            .map(|t| {
                t.parse::<Timestamp>()
                    .map(|t| t.as_microsecond())
                    .map_err(|_| invalid(format!("{field} is not an RFC 3339 time")))
            })
            .transpose()
    };
    let family = |name: &str, asked: &str| name.split_once('.').is_some_and(|(first, _)| first == asked);
    if let Some(asked) = &query.kind
        && !Kind::ALL.iter().any(|k| k.name() == asked || family(k.name(), asked))
    {
        let mut families: Vec<_> = Kind::ALL.iter().filter_map(|k| k.name().split('.').next()).collect();
        families.dedup();
        let cause =
            format!("there is no kind `{}`; there are: {}", keyward_diag::plain(asked, 40), families.join(", "));
        return Err(invalid(cause));
    }
    if query.text.as_ref().is_some_and(|text| text.is_empty() || text.len() > 200) {
        return Err(invalid("text has 1 to 200 bytes".to_owned()));
    }
    let outcome = query
        .outcome
        .as_ref()
        .map(|o| Outcome::parse(o).ok_or_else(|| invalid("outcome is ok, refused or failed".to_owned())));
    Ok(Filter {
        app: query.app.clone(),
        profile: query.profile.clone(),
        project: query.project.clone(),
        run: query.run.clone(),
        kind: query.kind.clone(),
        outcome: outcome.transpose()?,
        since_us: time(&query.since, "since")?,
        until_us: time(&query.until, "until")?,
        text: query.text.clone(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn queries_are_read_and_what_the_api_does_not_know_is_refused() {
        let query: AuditQuery = read_query("app=claude&project=%2Fhome%2Fa+b&limit=5&after=7&text=123").unwrap();
        assert_eq!((query.app.as_deref(), query.project.as_deref()), (Some("claude"), Some("/home/a b")));
        assert_eq!((query.limit, query.after, query.text.as_deref()), (Some(5), Some(7), Some("123")));
        assert_eq!(read_query::<AuditQuery>("").unwrap(), AuditQuery::default());
        for bad in [
            "application=x",
            "limit=x",
            "limit=",
            "limit=4294967296",
            "before=-1",
            "=",
            "app=a&app=b",
            "bars=3",
            "%00=1",
        ] {
            let fault = read_query::<AuditQuery>(bad).unwrap_err();
            assert_eq!(fault.code, Code::RequestInvalid, "{bad}");
        }
        for bad in ["text=x", "run=x", "limit=1"] {
            assert!(read_query::<AuditSummaryQuery>(bad).is_err(), "{bad}");
        }
        assert_eq!(read_query::<AuditVerifyQuery>("pages=false").unwrap().pages, Some(false));
        for bad in ["pages=0", "pages=", "pages=true&pages=true", "entries=true"] {
            assert!(read_query::<AuditVerifyQuery>(bad).is_err(), "{bad}");
        }
        assert_eq!(read_query::<PastRunsQuery>("before=9").unwrap().before, Some(9));
    }

    #[test]
    fn a_page_is_bounded_by_entries_and_by_bytes_and_never_empty() {
        let fits = |lengths: &[usize], limit| fitting(lengths.iter().copied(), limit);
        assert_eq!((fits(&[], 3), fits(&[1; 5], 3), fits(&[1; 2], 3)), (0, 3, 2));
        let half = PAGE_MAX_BYTES / 2;
        assert_eq!((fits(&[half; 5], 9), fits(&[half, half + 1, 1], 9)), (2, 1));
        assert_eq!(fits(&[PAGE_MAX_BYTES + 1, 1], 9), 1);
    }

    #[test]
    fn filters_that_cannot_hold_are_refused() {
        for (bad, query) in [
            ("kind", AuditQuery { kind: Some("leases".into()), ..AuditQuery::default() }),
            ("outcome", AuditQuery { outcome: Some("good".into()), ..AuditQuery::default() }),
            ("since", AuditQuery { since: Some("yesterday".into()), ..AuditQuery::default() }),
            ("empty text", AuditQuery { text: Some(String::new()), ..AuditQuery::default() }),
            ("long text", AuditQuery { text: Some("x".repeat(201)), ..AuditQuery::default() }),
        ] {
            assert_eq!(filter(&query).unwrap_err().code, Code::RequestInvalid, "{bad}");
        }
        let query = AuditQuery {
            kind: Some("lease".into()),
            since: Some("2026-11-21T00:00:00Z".into()),
            ..AuditQuery::default()
        };
        assert_eq!(filter(&query).unwrap().since_us, Some(1_795_219_200_000_000));
    }

    fn hours(list: &[i64]) -> Vec<(i64, ByOutcome)> {
        list.iter().map(|hour| (*hour, ByOutcome { ok: 1, refused: 2, failed: 3 })).collect()
    }

    #[test]
    fn bars_are_few_equal_and_lose_nothing() {
        assert!(bars(&[], 120).1.is_empty());
        let (width, one) = bars(&hours(&[498_561]), 1);
        assert_eq!((width, one.len(), one[0].at.as_str(), one[0].failed), (1, 1, "2026-11-16T09:00:00Z", 3));
        // A day begins at midnight, and empty bars are there.
        let (width, week) = bars(&hours(&[498_561, 498_562, 498_561 + 24 * 6]), 7);
        assert_eq!((width, week.len(), week[0].at.as_str()), (24, 7, "2026-11-16T00:00:00Z"));
        assert_eq!(week.iter().map(|bar| bar.ok).collect::<Vec<_>>(), [2, 0, 0, 0, 0, 0, 1]);
        // A clock that was wrong makes bars wide, not many.
        for most in [1, 2, 3, 120, 500] {
            for wrong in [&[-5, 498_561][..], &[-5, 3], &[i64::from(i32::MIN) + 1, 0, i64::from(i32::MAX)]] {
                let (width, wide) = bars(&hours(wrong), most);
                assert!(wide.len() <= usize::try_from(most).unwrap() && width > 0, "{wrong:?} {most}");
                assert_eq!(wide.iter().map(|bar| bar.refused).sum::<u64>(), 2 * wrong.len() as u64, "{wrong:?} {most}");
            }
        }
    }

    #[test]
    fn held_used_and_live_stand_in_one_row() {
        let of = |kind, app: &str, at: &str| Use {
            kind,
            app: app.into(),
            profile: "pg".into(),
            count: 2,
            uses: if kind == Kind::CredentialUsed { 70 } else { 0 },
            first_at: at.into(),
            last_at: at.into(),
        };
        let uses = vec![
            of(Kind::CredentialUsed, "claude", "7"),
            of(Kind::CredentialUsed, "psql", "6"),
            of(Kind::GatewayOpened, "claude", "5"),
            of(Kind::GatewayOpened, "psql", "4"),
            of(Kind::TokenDelivered, "psql", "3"),
            of(Kind::CredentialDelivered, "codex", "2"),
            of(Kind::CredentialDelivered, "psql", "1"),
        ];
        let live = |leases, unseen| Live { leases, unseen };
        let live = BTreeMap::from([
            (("codex".into(), "pg".into()), live(1, true)),
            (("idle".into(), "pg".into()), live(4, true)),
            (("claude".into(), "pg".into()), live(1, false)),
        ]);
        let table = table_of_uses(uses, live);
        let seen: Vec<_> = table
            .iter()
            .map(|row| {
                let of = |span: &Option<SpanMsg>| {
                    span.as_ref().map(|span| (span.count, format!("{}-{}", span.first_at, span.last_at)))
                };
                (row.app.as_str(), of(&row.held), of(&row.used), row.unseen, row.live)
            })
            .collect();
        let span = |count, text: &str| Some((count, text.to_owned()));
        let want = [
            ("claude", span(2, "5-5"), span(70, "7-7"), false, 1),
            ("psql", span(4, "1-4"), span(72, "3-6"), true, 0),
            ("codex", span(2, "2-2"), None, true, 1),
            ("idle", None, None, true, 4),
        ];
        assert_eq!(seen, want);
    }

    #[test]
    fn the_end_of_a_run_is_told_by_its_entry() {
        let body = br#"{"app":"codex","app_verified":true,"at":"2026-11-21T03:04:05.123456Z","detail":{"exit":3,
            "profiles":["pg"],"seconds":9,"started_at":"2026-11-21T03:03:56Z","uses":12},"kind":"run.ended","outcome":"ok",
            "project":"/p","run":"r","seq":7}"#;
        let run = past_run(7, &Entry::parse(body).unwrap());
        assert_eq!((run.run.as_str(), run.exit, run.signal, run.seq, run.uses), ("r", Some(3), None, 7, Some(12)));
        assert_eq!((run.started_at.as_deref(), run.profiles), (Some("2026-11-21T03:03:56Z"), vec!["pg".to_owned()]));
        let bare = br#"{"at":"","detail":{"exit":null,"code":7,"profiles":"x"},"kind":"run.ended","outcome":"failed","seq":7}"#;
        let run = past_run(7, &Entry::parse(bare).unwrap());
        assert_eq!((run.exit, run.code, run.started_at, run.profiles.len(), run.uses), (None, None, None, 0, None));
    }
}
