//! The log: pages, verification, export, and going on after a break.

use crate::broker::{Broker, entry_of, facts};
use crate::peer::Peer;
use crate::platform::now;
use bytes::Bytes;
use jiff::Timestamp;
use keyward_api::{
    AcceptBreakRequest, AnchorMsg, AuditEntryMsg, AuditPage, AuditQuery, ExportRequest, GapMsg, HeadMsg, ProblemMsg,
    VerifyAnswer,
};
use keyward_core::audit::{Kind, Outcome};
use keyward_crypto::{ExportKey, ItemRef};
use keyward_diag::{Code, Fault};
use keyward_store::{Filter, Link, Order, Page, Store, StoreError};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

const PAGE: u32 = 100;
const PAGE_MAX: u32 = 1_000;

impl Broker {
    /// The open database, for reading the log.
    async fn log(&self) -> Result<Arc<Store>, Fault> {
        let mut state = self.state_for_request().await?;
        Ok(Arc::clone(&self.unlocked(&mut state)?.store))
    }

    /// One page of the log.
    pub(crate) async fn audit(&self, query: &str) -> Result<AuditPage, Fault> {
        let query = parse_query(query)?;
        let limit = query.limit.unwrap_or(PAGE);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Fault::new(Code::RequestInvalid).cause(format!("limit is between 1 and {PAGE_MAX}")));
        }
        if query.before.is_some() && query.after.is_some() {
            return Err(Fault::new(Code::RequestInvalid).cause("give either before or after"));
        }
        let order = if query.after.is_some() { Order::OldestFirst } else { Order::NewestFirst };
        let page = Page { after: query.after, before: query.before, order, limit: limit + 1 };
        let filter = filter(&query)?;
        let store = self.log().await?;
        let mut links = store.entries(page, &filter).await.map_err(|e| e.fault())?;
        let more = links.len() > limit as usize;
        links.truncate(limit as usize);
        Ok(AuditPage {
            entries: links.iter().map(message).collect(),
            more,
            looked_to: None,
            head: store.head().await.seq,
        })
    }

    pub(crate) async fn audit_summary(&self, _query: &str) -> Result<keyward_api::AuditSummary, Fault> {
        Err(Fault::new(Code::Internal))
    }

    pub(crate) async fn apps(&self, _query: &str) -> Result<Vec<keyward_api::AppUseMsg>, Fault> {
        Err(Fault::new(Code::Internal))
    }

    pub(crate) async fn runs_past(&self, _query: &str) -> Result<keyward_api::PastRunsPage, Fault> {
        Err(Fault::new(Code::Internal))
    }

    /// One entry.
    pub(crate) async fn audit_entry(&self, seq: &str) -> Result<AuditEntryMsg, Fault> {
        let seq = seq.parse().map_err(|_| Fault::new(Code::RequestInvalid).cause("an entry has a number"))?;
        let link = self.log().await?.entry(seq).await.map_err(|e| e.fault())?;
        link.as_ref()
            .map(message)
            .ok_or_else(|| Fault::new(Code::AuditUnknown).cause(format!("there is no entry {seq}")))
    }

    /// Verifies the whole log.
    pub(crate) async fn verify(&self) -> Result<VerifyAnswer, Fault> {
        let Ok(_turn) = self.verifying.try_lock() else {
            return Err(Fault::new(Code::Busy).cause("the log is being verified"));
        };
        let store = self.log().await?;
        let mut seen = vec!["file".to_owned()];
        if self.check_keyring_anchor(&store).await? {
            seen.push("keyring".to_owned());
        }
        let report = store.verify().await.map_err(|e| e.fault())?;
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

/// Reads the query of `GET /v1/audit` (`application/x-www-form-urlencoded`).
fn parse_query(query: &str) -> Result<AuditQuery, Fault> {
    let invalid = |cause: String| Fault::new(Code::RequestInvalid).cause(cause);
    let mut out = AuditQuery::default();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = || value.parse::<u64>().map_err(|_| invalid(format!("`{key}` is not a number")));
        let text = || Some(value.clone().into_owned());
        match key.as_ref() {
            "before" => out.before = Some(number()?),
            "after" => out.after = Some(number()?),
            "limit" => out.limit = Some(u32::try_from(number()?).unwrap_or(u32::MAX)),
            "app" => out.app = text(),
            "profile" => out.profile = text(),
            "project" => out.project = text(),
            "kind" => out.kind = text(),
            "outcome" => out.outcome = text(),
            "run" => out.run = text(),
            "since" => out.since = text(),
            "until" => out.until = text(),
            other => return Err(invalid(format!("there is no filter `{}`", keyward_diag::plain(other, 40)))),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_unknown_filters_refused() {
        let q = parse_query("app=claude&project=%2Fhome%2Fa+b&limit=5&after=7").unwrap_or_default();
        assert_eq!(
            (q.app.as_deref(), q.project.as_deref(), q.limit, q.after),
            (Some("claude"), Some("/home/a b"), Some(5), Some(7))
        );
        for bad in ["application=x", "limit=x", "before=-1", "="] {
            assert_eq!(parse_query(bad).map_err(|f| f.code), Err(Code::RequestInvalid), "{bad}");
        }
    }
}
