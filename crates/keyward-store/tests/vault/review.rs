//! What the review looks up says what the entries say, and whoever changes it is found.

use crate::home::{Home, PASSPHRASE, draft, many, material, passphrase, raw};
use keyward_core::audit::{Draft, Entry, Kind, Outcome, ProblemKind, Stamp};
use keyward_crypto::VaultKey;
use keyward_store::{Changes, Filter, Health, Link, Order, Page, Store, StoreError, VerifyReport, load_slots};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const HOUR_US: i64 = 3_600_000_000;

pub(crate) fn page(order: Order, limit: u32) -> Page {
    Page { after: None, before: None, order, limit }
}

pub(crate) async fn everything(store: &Store) -> Vec<Link> {
    store.entries(page(Order::OldestFirst, u32::MAX), &Filter::default()).await.unwrap()
}

fn at_us(link: &Link) -> Option<i64> {
    Stamp::read(&link.body).at_us()
}

/// Whether an entry matches, told in another way than the store does it.
pub(crate) fn fits(filter: &Filter, link: &Link) -> bool {
    let body = String::from_utf8_lossy(&link.body).to_lowercase();
    if filter.text.as_ref().is_some_and(|text| !body.contains(&text.to_lowercase())) {
        return false;
    }
    let Ok(entry) = link.entry() else { return *filter == Filter { text: filter.text.clone(), ..Filter::default() } };
    let same = |wanted: &Option<String>, field: &Option<String>| {
        wanted.as_ref().is_none_or(|wanted| *wanted == field.clone().unwrap_or_default())
    };
    same(&filter.app, &entry.app)
        && same(&filter.profile, &entry.profile)
        && same(&filter.project, &entry.project)
        && same(&filter.run, &entry.run)
        && filter.kind.as_ref().is_none_or(|kind| {
            let name = entry.kind.name();
            name == kind || name.split('.').next() == Some(kind)
        })
        && filter.outcome.is_none_or(|outcome| outcome == entry.outcome)
        && filter.since_us.is_none_or(|since| at_us(link).is_some_and(|at| at >= since))
        && filter.until_us.is_none_or(|until| at_us(link).is_some_and(|at| at < until))
}

/// Reads page after page, going on from the last entry or from where the search stopped.
pub(crate) async fn paged(store: &Store, filter: &Filter, order: Order, limit: u32, patience: Duration) -> Vec<u64> {
    let (mut seqs, mut page, mut rounds) = (Vec::new(), page(order, limit), 0);
    loop {
        let found = store.search(page, filter, patience).await.unwrap();
        seqs.extend(found.links.iter().map(|link| link.seq));
        let full = found.links.len() == limit as usize;
        assert!(found.links.len() <= limit as usize && !(full && found.looked_to.is_some()), "{filter:?}");
        let end = if full { found.links.last().map(|link| link.seq) } else { found.looked_to };
        match (end, order) {
            (None, _) => return seqs,
            (end, Order::OldestFirst) => page.after = end,
            (end, Order::NewestFirst) => page.before = end,
        }
        rounds += 1;
        assert!(rounds < 10_000, "{filter:?} comes to no end");
    }
}

/// Entries that are hard to file: clocks that jump, fields that are absent, empty, long, or full of quotes.
pub(crate) fn odd(n: u64) -> Draft {
    let at = 1_795_230_245_000_000 + i64::try_from(n % 40).unwrap() * 1_500_000_000
        - i64::try_from(n / 300).unwrap() * 9 * HOUR_US;
    let kind = [Kind::RunStarted, Kind::LeaseIssued, Kind::CredentialUsed, Kind::RequestRefused, Kind::TokenDelivered];
    let kind = kind[usize::try_from(n % 5).unwrap()];
    let mut draft = Draft::new(at, kind).outcome(Outcome::ALL[usize::try_from(n / 5 % 3).unwrap()]).detail("n", n);
    draft.app = [None, Some(""), Some("codex"), Some("Claude \"Code\""), Some("été")]
        [usize::try_from(n / 7 % 5).unwrap()]
    .map(str::to_owned);
    draft.profile = (!n.is_multiple_of(3)).then(|| format!("p{}", n % 4));
    draft.project = match n % 11 {
        0 => None,
        1 => Some(format!("/{}a", "é".repeat(400))),
        2 => Some(format!("/{}b", "é".repeat(400))),
        more => Some(format!("/home/{more}")),
    };
    draft.run = (!n.is_multiple_of(6)).then(|| format!("run-{}", n / 6 % 90));
    if n == 700 {
        draft.at_us = i64::MIN;
    }
    // Counts of all sorts, also of kinds that count no uses.
    match n % 13 {
        0 => draft.detail.insert("count".into(), "7".into()),
        1 => draft.detail.insert("count".into(), 65.into()),
        2 => draft.detail.insert("count".into(), 0.into()),
        3 => draft.detail.insert("count".into(), (-1).into()),
        4 => draft.detail.insert("count".into(), 1.5.into()),
        more => (more < 9).then(|| draft.detail.insert("count".into(), (n % 64 + 1).into())).flatten(),
    };
    draft
}

async fn odd_home() -> (Home, Store) {
    let home = Home::new();
    let store = home.create().await;
    let drafts: Vec<Draft> = (0..1800).map(odd).collect();
    let mut rest = &drafts[..];
    // Commits of all sizes, one of them longer than a block.
    for size in [1, 2, 3, 500, 7, 1, 530, 600].into_iter().chain(std::iter::repeat(40)) {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at(size.min(rest.len()));
        store.commit(Changes::record(now.to_vec())).await.unwrap();
        rest = later;
    }
    (home, store)
}

pub(crate) fn filters() -> Vec<Filter> {
    let all = Filter::default;
    let text = |text: &str| Some(text.to_owned());
    let long = format!("/{}a", "é".repeat(400));
    let noon = 1_795_230_245_000_000 + 10 * HOUR_US;
    vec![
        all(),
        Filter { app: text("codex"), ..all() },
        Filter { app: text(""), ..all() },
        Filter { app: text("Codex"), ..all() },
        Filter { app: text("Claude \"Code\""), profile: text("p1"), ..all() },
        Filter { app: text("été"), profile: text(""), outcome: Some(Outcome::Refused), ..all() },
        Filter { profile: text("p2"), kind: text("lease"), ..all() },
        Filter { kind: text("lease.issued"), outcome: Some(Outcome::Ok), ..all() },
        Filter { kind: text("leas"), ..all() },
        Filter { kind: text("vault"), ..all() },
        Filter { project: Some(long.clone()), ..all() },
        Filter { project: Some(long), app: text("codex"), ..all() },
        Filter { project: text("/home/7"), since_us: Some(noon), ..all() },
        Filter { since_us: Some(noon), until_us: Some(noon + 1), ..all() },
        Filter { until_us: Some(noon), app: text("codex"), ..all() },
        Filter { since_us: Some(noon), until_us: Some(noon + HOUR_US / 3), profile: text("p1"), ..all() },
        Filter { since_us: Some(i64::MIN), ..all() },
        Filter { until_us: Some(i64::MAX), outcome: Some(Outcome::Failed), ..all() },
        Filter { run: text("run-7"), ..all() },
        Filter { run: text("run-7"), kind: text("token"), app: text("codex"), ..all() },
        Filter { run: text("run-700"), ..all() },
        Filter { text: text("CODEX"), ..all() },
        Filter { text: text("\"n\":17"), kind: text("run"), ..all() },
        Filter { text: text("ÉTÉ"), ..all() },
        Filter { text: text("éÉéb"), profile: text("p2"), ..all() },
        Filter { text: text("run-8"), run: text("run-80"), ..all() },
        Filter { text: text("no such words"), ..all() },
        Filter { text: text("%"), ..all() },
    ]
}

#[tokio::test]
async fn every_filter_and_page_gives_what_reading_everything_gives() {
    let (home, store) = odd_home().await;
    let links = everything(&store).await;
    assert_eq!(links.len(), 1801);
    for filter in filters() {
        let mut want: Vec<u64> = links.iter().filter(|link| fits(&filter, link)).map(|link| link.seq).collect();
        for order in [Order::OldestFirst, Order::NewestFirst] {
            for limit in [1, 7, 100, 5000] {
                if limit == 1 && want.len() > 200 {
                    continue;
                }
                let got = paged(&store, &filter, order, limit, Duration::MAX).await;
                assert_eq!(got, want, "{filter:?} {order:?} {limit}");
            }
            want.reverse();
        }
        for (after, before) in
            [(Some(600), Some(1100)), (None, Some(3)), (Some(1800), None), (Some(u64::MAX), None), (None, Some(0))]
        {
            let part = Page { after, before, ..page(Order::NewestFirst, 3) };
            let got: Vec<u64> = store.entries(part, &filter).await.unwrap().iter().map(|link| link.seq).collect();
            let within =
                |seq: &u64| after.is_none_or(|after| *seq > after) && before.is_none_or(|before| *seq < before);
            let want: Vec<u64> = want.iter().rev().copied().filter(within).take(3).collect();
            assert_eq!(got, want, "{filter:?} {after:?} {before:?}");
        }
    }
    drop(home);
}

#[tokio::test]
async fn a_search_that_stops_goes_on_where_it_stopped_and_finds_everything_once() {
    let (home, store) = odd_home().await;
    let links = everything(&store).await;
    let mut stopped = 0;
    for filter in filters() {
        let mut want: Vec<u64> = links.iter().filter(|link| fits(&filter, link)).map(|link| link.seq).collect();
        for order in [Order::OldestFirst, Order::NewestFirst] {
            assert_eq!(paged(&store, &filter, order, 50, Duration::ZERO).await, want, "{filter:?} {order:?}");
            want.reverse();
        }
        // With no patience the first slice is the only one.
        let found = store.search(page(Order::NewestFirst, 5000), &filter, Duration::ZERO).await.unwrap();
        stopped += usize::from(found.looked_to.is_some());
        assert_eq!(found.head, 1801);
    }
    drop((home, stopped));
}

#[tokio::test]
async fn entries_that_come_while_a_search_goes_on_are_left_for_the_next_one() {
    let (home, store) = odd_home().await;
    let filter = Filter { app: Some("codex".into()), ..Filter::default() };
    let before = paged(&store, &filter, Order::NewestFirst, 10, Duration::MAX).await;
    let first = store.search(page(Order::NewestFirst, 10), &filter, Duration::MAX).await.unwrap();
    store.commit(Changes::record(vec![Draft::new(1, Kind::RunStarted).app("codex", true)])).await.unwrap();
    let next = Page { before: first.links.last().map(|link| link.seq), ..page(Order::NewestFirst, 5000) };
    let rest = store.search(next, &filter, Duration::MAX).await.unwrap();
    let seqs: Vec<u64> = first.links.iter().chain(&rest.links).map(|link| link.seq).collect();
    assert_eq!((seqs, first.head, rest.head), (before, 1801, 1802));
    let tail = Page { after: Some(first.head), ..page(Order::OldestFirst, 10) };
    assert_eq!(store.entries(tail, &filter).await.unwrap().len(), 1);
    drop(home);
}

/// Checks summaries and uses against the entries.
pub(crate) async fn adds_up(store: &Store, filters: Vec<Filter>) {
    let links = everything(store).await;
    let entries: Vec<Entry> = links.iter().filter_map(|link| link.entry().ok()).collect();
    let noon = 1_795_230_245_000_000_i64.div_euclid(HOUR_US) * HOUR_US + 10 * HOUR_US;
    let hourly = Filter { since_us: Some(noon), until_us: Some(noon + 3 * HOUR_US), ..Filter::default() };
    for filter in filters.into_iter().chain([hourly]) {
        // Times count by the hour, and what stands for itself does not count.
        let down = |us: i64| us.div_euclid(HOUR_US).saturating_mul(HOUR_US);
        let wide = Filter {
            since_us: filter.since_us.map(down),
            until_us: filter.until_us.map(|until| down(until.saturating_sub(1)).saturating_add(HOUR_US)),
            run: None,
            text: None,
            ..filter.clone()
        };
        let matching: Vec<&Link> = links.iter().filter(|link| fits(&wide, link)).collect();
        let summary = store.summary(&filter).await.unwrap();
        assert_eq!((summary.total, summary.entries), (matching.len() as u64, links.len() as u64), "{filter:?}");
        let mut hours: BTreeMap<i64, (u64, u64, u64)> = BTreeMap::new();
        for link in &matching {
            let (Ok(entry), Some(at)) = (link.entry(), at_us(link)) else { continue };
            let counts = hours.entry(at.div_euclid(HOUR_US)).or_default();
            match entry.outcome {
                Outcome::Ok => counts.0 += 1,
                Outcome::Refused => counts.1 += 1,
                Outcome::Failed => counts.2 += 1,
            }
        }
        let seen: BTreeMap<_, _> = summary.hours.iter().map(|(hour, n)| (*hour, (n.ok, n.refused, n.failed))).collect();
        assert_eq!(seen, hours, "{filter:?}");
        let count = |field: &dyn Fn(&Entry) -> Option<String>| {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for name in entries.iter().filter_map(field).filter(|name| !name.is_empty() && name.len() <= 512) {
                *counts.entry(name).or_default() += 1;
            }
            counts
        };
        let listed = |list: &[(String, u64)]| {
            assert!(list.is_sorted_by(|(_, a), (_, b)| a >= b), "{list:?}");
            list.iter().cloned().collect::<BTreeMap<_, _>>()
        };
        assert_eq!(listed(&summary.apps), count(&|entry| entry.app.clone()));
        assert_eq!(listed(&summary.profiles), count(&|entry| entry.profile.clone()));
        assert_eq!(listed(&summary.projects), count(&|entry| entry.project.clone()));
        assert_eq!(listed(&summary.kinds), count(&|entry| Some(entry.kind.name().to_owned())));

        let kinds = [Kind::TokenDelivered, Kind::LeaseIssued, Kind::CredentialDelivered, Kind::CredentialUsed];
        let mut uses: BTreeMap<_, ([u64; 2], [String; 2])> = BTreeMap::new();
        for entry in matching.iter().filter_map(|link| link.entry().ok()) {
            let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
            if let (Some(app), Some(profile)) = (named(&entry.app), named(&entry.profile))
                && kinds.contains(&entry.kind)
                && entry.outcome == Outcome::Ok
            {
                let found = uses.entry((entry.kind, app, profile)).or_default();
                found.0[0] += 1;
                if entry.kind == Kind::CredentialUsed {
                    let count = entry.detail.get("count").and_then(|count| count.as_u64());
                    found.0[1] += count.filter(|count| (1..=64).contains(count)).unwrap_or(1);
                }
                if found.0[0] == 1 {
                    found.1[0].clone_from(&entry.at);
                }
                found.1[1] = entry.at;
            }
        }
        let seen = store.uses(&kinds, &filter).await.unwrap().into_iter();
        let seen = seen.map(|u| ((u.kind, u.app, u.profile), ([u.count, u.uses], [u.first_at, u.last_at])));
        assert_eq!(seen.collect::<BTreeMap<_, _>>(), uses, "{filter:?}");
    }
}

#[tokio::test]
async fn summaries_and_uses_add_up_to_the_entries() {
    let (home, store) = odd_home().await;
    adds_up(&store, filters()).await;
    assert!(store.verify().await.unwrap().ok);
    store.close().await.unwrap();
    // The newest block goes on after opening anew.
    let (store, _) = home.open().await.unwrap();
    store.commit(Changes::record((0..40).map(odd).collect())).await.unwrap();
    adds_up(&store, filters()).await;
    let report = store.verify().await.unwrap();
    assert!(report.ok && report.problems.is_empty(), "{report:?}");
}

/// A vault of an earlier schema. That of the first one has no lookup tables, the cells of the third one count no uses.
fn earlier(fixture: &str) -> (Home, VaultKey) {
    let home = Home::new();
    drop(home.lock());
    for (name, to) in
        [("vault.db", home.paths.db()), ("vault.slots", home.paths.slots()), ("anchor", home.paths.anchor())]
    {
        std::fs::copy(format!("{}/tests/fixtures/{fixture}/{name}", env!("CARGO_MANIFEST_DIR")), to).unwrap();
    }
    let key = load_slots(&home.paths).unwrap().open_passphrase(&passphrase(PASSPHRASE)).unwrap();
    (home, key)
}

async fn opened(home: &Home, key: &VaultKey) -> (Store, Health) {
    Store::open(&home.lock(), &load_slots(&home.paths).unwrap(), key).await.unwrap()
}

#[tokio::test]
async fn a_log_of_the_third_schema_counts_uses_once_it_is_opened() {
    let (home, key) = earlier("v3-log");
    let (store, health) = opened(&home, &key).await;
    assert_eq!(health, Health::Sound { past_anchor: 0 });
    let links = everything(&store).await;
    assert_eq!(links.len(), 541);
    let used = Draft::new(9, Kind::CredentialUsed).app("codex", true).profile("pg-dev").detail("count", 64);
    // So many that the newest block of before is finished, too.
    store.commit(Changes::record(vec![used; 500])).await.unwrap();
    adds_up(&store, filters()).await;
    let uses = store.uses(&[Kind::CredentialUsed], &Filter::default()).await.unwrap();
    assert_eq!(uses.iter().map(|u| (u.count, u.uses)).collect::<Vec<_>>(), [(500, 32_000)]);
    let report = store.verify().await.unwrap();
    assert!(report.ok && report.problems.is_empty(), "{report:?}");
}

#[tokio::test]
async fn a_log_of_the_first_release_can_be_looked_up_once_it_is_opened() {
    let (home, key) = earlier("v1-log");
    for round in 0..2 {
        let (store, health) = opened(&home, &key).await;
        assert_eq!(health, Health::Sound { past_anchor: 0 });
        assert_eq!(everything(&store).await.len(), 2 + many(40).len());
        adds_up(&store, filters()).await;
        let rare = Filter { app: Some("codex".into()), profile: Some("pg-prod".into()), ..Filter::default() };
        let found = store.entries(page(Order::NewestFirst, 100), &rare).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|link| fits(&rare, link)));
        let report = store.verify().await.unwrap();
        assert!(report.ok && report.problems.is_empty(), "{report:?}");
        store.close().await.unwrap();
        if round == 0 {
            // As after a crash between the migration and the filling.
            let mut conn = raw(&home.paths.db(), &key.derive_db()).await.unwrap();
            conn.execute(
                "DELETE FROM audit_run; DELETE FROM audit_block WHERE block = 0; INSERT INTO meta VALUES ('audit.unindexed', x'')",
            )
            .await
            .unwrap();
            conn.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_log_with_bodies_that_are_no_entries_is_migrated_and_its_breaks_are_the_same() {
    let (home, key) = earlier("v1-log");
    let mut conn = raw(&home.paths.db(), &key.derive_db()).await.unwrap();
    conn.execute(
        "UPDATE audit SET body = x'ff00' WHERE seq = 5; UPDATE audit SET body = x'' WHERE seq = 6;
         UPDATE audit SET body = CAST('{\"seq\":7,\"kind\":\"run.ended\",\"app\":7,\"run\":[]}' AS BLOB) WHERE seq = 7;
         INSERT INTO audit SELECT 9223372036854775807, body, prev, mac FROM audit WHERE seq = 8;
         INSERT INTO audit SELECT -3, body, prev, mac FROM audit WHERE seq = 8",
    )
    .await
    .unwrap();
    conn.close().await.unwrap();
    let (store, health) = opened(&home, &key).await;
    assert!(matches!(health, Health::Broken { .. }));
    let report = store.verify().await.unwrap();
    assert!(!report.ok && report.problems.iter().all(|p| p.kind != ProblemKind::IndexMismatch), "{report:?}");
    for seq in [5, 6, 7] {
        assert!(report.problems.iter().any(|p| (p.seq, p.kind) == (seq, ProblemKind::MacMismatch)), "{report:?}");
    }
    let summary = store.summary(&Filter::default()).await.unwrap();
    assert_eq!(summary.entries, 2 + many(40).len() as u64 + 2);
    assert_eq!(
        store.entries(page(Order::NewestFirst, 1000), &Filter::default()).await.unwrap().len() as u64,
        summary.entries
    );
    assert!(!summary.apps.iter().any(|(name, _)| name == "7"));
}

pub(crate) fn found(report: &VerifyReport) -> Vec<(u64, ProblemKind)> {
    report.problems.iter().filter(|p| !p.accepted).map(|p| (p.seq, p.kind)).collect()
}

#[tokio::test]
async fn whoever_changes_what_the_review_looks_up_is_found_and_accepting_mends_it() {
    let cells = |from: &str, to: &str| {
        format!("UPDATE audit_block SET cells = unhex(replace(hex(cells), hex('{from}'), hex('{to}'))) WHERE block = 1")
    };
    let cases = [
        ("one block removed", "DELETE FROM audit_block WHERE block = 1".to_owned(), 512),
        ("all removed", "DELETE FROM audit_block; DELETE FROM audit_run".to_owned(), 1),
        ("an app renamed", cells("codex", "c0dex"), 512),
        ("a profile that goes by another one's name", cells("pg-prod", "pg-pr0d"), 512),
        ("cells emptied", "UPDATE audit_block SET cells = x'' WHERE block = 0".to_owned(), 1),
        ("the last cell cut off", "UPDATE audit_block SET cells = substr(cells, 1, length(cells) - 22) WHERE block = 1".to_owned(), 512),
        ("a cell of another hour", "UPDATE audit_block SET cells = CAST(substr(cells, 1, length(cells) - 22) || x'00000000' || substr(cells, -18) AS BLOB) WHERE block = 1".to_owned(), 512),
        ("uses that nobody made", "UPDATE audit_block SET cells = CAST(substr(cells, 1, length(cells) - 2) || x'0700' AS BLOB) WHERE block = 1".to_owned(), 512),
        ("two blocks swapped", "UPDATE audit_block SET block = -1 WHERE block = 0; UPDATE audit_block SET block = 0 WHERE block = 1; UPDATE audit_block SET block = 1 WHERE block = -1".to_owned(), 1),
        ("a block of nothing", "INSERT INTO audit_block VALUES (77, x'0000')".to_owned(), 1),
        ("a run removed", "DELETE FROM audit_run WHERE run = '018f3a3e-7c1a-7abc-8def-000000000007'".to_owned(), 1),
        ("a run renamed", "UPDATE audit_run SET run = 'x' WHERE run = '018f3a3e-7c1a-7abc-8def-000000000060'".to_owned(), 1),
        ("the end of a run hidden", "UPDATE audit_run SET last = last - 1 WHERE block = 1".to_owned(), 512),
        ("a run of nothing", "INSERT INTO audit_run VALUES ('x', 0, 1, 1, 1)".to_owned(), 1),
    ];
    let (key, slots) = material();
    for (name, sql, want) in cases {
        let home = Home::new();
        let store = home.create().await;
        store.commit(Changes::record(many(300))).await.unwrap();
        assert!(store.verify().await.unwrap().ok);
        store.close().await.unwrap();
        let mut conn = home.raw().await;
        conn.execute(AssertSqlSafe(sql)).await.unwrap();
        conn.close().await.unwrap();

        let (store, _) = home.open().await.unwrap();
        let report = store.verify().await.unwrap();
        assert_eq!(found(&report), [(want, ProblemKind::IndexMismatch)], "{name}");
        assert!(!report.ok && store.is_broken(), "{name}");
        // The log goes on, and nothing mends the difference unseen.
        store.commit(Changes::record(vec![draft(7)])).await.unwrap();
        assert!(!store.verify().await.unwrap().ok, "{name}");
        store.close().await.unwrap();
        let (store, health) = home.open().await.unwrap();
        assert!(matches!(health, Health::Broken { .. }), "{name}");
        let kinds: BTreeSet<_> = found(&store.verify().await.unwrap()).iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, BTreeSet::from([ProblemKind::IndexMismatch]), "{name}");

        store.accept_break(&home.lock(), slots, key, 9, "looked at", None).await.unwrap();
        let report = store.verify().await.unwrap();
        assert!(
            report.ok && report.problems.iter().any(|p| p.kind == ProblemKind::IndexMismatch && p.accepted),
            "{name}"
        );
        adds_up(&store, vec![Filter::default()]).await;
        store.commit(Changes::record(vec![draft(8)])).await.unwrap();
        assert!(store.verify().await.unwrap().ok && !store.is_broken(), "{name}");
    }
}

#[tokio::test]
async fn lookup_tables_that_are_gone_are_found_and_no_block_is_finished_without_them() {
    for table in ["audit_block", "audit_run"] {
        let home = Home::filled(3).await;
        let mut conn = home.raw().await;
        conn.execute(AssertSqlSafe(format!("DROP TABLE {table}"))).await.unwrap();
        conn.close().await.unwrap();
        let (store, _) = home.open().await.unwrap();
        let report = store.verify().await.unwrap();
        assert_eq!(found(&report), [(1, ProblemKind::IndexMismatch)], "{table}");
        let error = store.commit(Changes::record(many(120))).await.unwrap_err();
        assert!(matches!(error, StoreError::Database(_)), "{error}");
        assert_eq!(store.head().await.seq, 3, "{table}");
        assert_eq!(store.commit(Changes::record(vec![draft(7)])).await.unwrap(), [4], "{table}");
    }
}

#[tokio::test]
async fn an_edited_log_is_one_finding_and_its_lookup_follows_once_it_is_accepted() {
    let home = Home::filled(6).await;
    let (key, slots) = material();
    home.sql("UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'profile-name', 'other-name') AS BLOB) WHERE seq = 3; DELETE FROM audit WHERE seq > 5")
        .await;
    let (store, _) = home.open().await.unwrap();
    let kinds: Vec<_> = found(&store.verify().await.unwrap()).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, [ProblemKind::MacMismatch, ProblemKind::HeadBehindAnchor]);
    store.commit(Changes::record(vec![draft(20)])).await.unwrap();
    store.accept_break(&home.lock(), slots, key, 9, "known", None).await.unwrap();
    assert!(store.verify().await.unwrap().ok);
    let filter = Filter { profile: Some("other-name".into()), ..Filter::default() };
    let links = store.entries(page(Order::OldestFirst, 10), &filter).await.unwrap();
    assert_eq!(links.iter().map(|link| link.seq).collect::<Vec<_>>(), [3], "the review shows what stands there");
    let profiles = store.summary(&Filter::default()).await.unwrap().profiles;
    assert_eq!(profiles, [("profile-name".to_owned(), 5), ("other-name".to_owned(), 1)]);
}

#[tokio::test]
async fn readers_who_are_quicker_than_the_worker_thread_do_not_stop_the_store() {
    let home = Home::filled(3).await;
    let (store, _) = home.open().await.unwrap();
    let busy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let hogs: Vec<_> = (0..8)
        .map(|_| {
            let busy = std::sync::Arc::clone(&busy);
            std::thread::spawn(move || while busy.load(std::sync::atomic::Ordering::Relaxed) {})
        })
        .collect();
    for _ in 0..2000 {
        store.entries(page(Order::NewestFirst, 1), &Filter::default()).await.unwrap();
    }
    busy.store(false, std::sync::atomic::Ordering::Relaxed);
    hogs.into_iter().for_each(|hog| hog.join().unwrap());
    assert!(store.verify().await.unwrap().ok);
}
