//! A request that waits for a person, as a terminal shows it.
//!
//! Every text is made safe to print here again, although the broker has done it: the terminal is where an escape would do
//! harm. What the requester says and the kernel does not is marked. Decides nothing. Called by the commands that show
//! requests and by those that wait for an answer.

use crate::time;
use keyward_api::{ApprovalMsg, ApprovalState, Decision, ProcessMsg, WantedMsg, part};
use keyward_diag::shown;

/// Longest text of one fact, in characters: more than the broker lets through, so that nothing is hidden that it has shown.
const FACT_MAX: usize = 8_192;

/// Most lines of a changed file that are shown.
const CHANGE_LINES: usize = 200;

/// Where an answer goes.
pub(crate) fn path(id: &str) -> String {
    format!("/v1/approvals/{}", part(id))
}

/// All that a person decides by: the question, and the facts below it.
pub(crate) fn text(card: &ApprovalMsg) -> String {
    let mut facts = vec![("asked by", chain(&card.chain))];
    let mut fact = |name: &'static str, field: &str, text: String| {
        if !text.is_empty() {
            let said = if card.said.iter().any(|said| said == field) { " (the requester says so)" } else { "" };
            facts.push((name, text + said));
        }
    };
    if let Some(run) = &card.outer_run {
        let app = card.outer_app.as_deref().unwrap_or("a program");
        fact("inside", "outer_run", format!("the run {run} of {app}"));
    }
    fact("app", "app", card.app.clone());
    let verified = if card.verified { "" } else { " (claimed: seen when it has started)" };
    if !card.program.is_empty() {
        fact("program", "program", format!("{}{verified}", card.program));
    }
    fact("launcher", "launcher", card.launcher.clone().unwrap_or_default());
    fact("project", "project", card.project.clone());
    fact("branch", "branch", card.branch.clone().unwrap_or_default());
    fact("command", "command", card.command.clone().unwrap_or_default());
    fact("reason", "reason", card.reason.clone().unwrap_or_default());
    for wanted in &card.wanted {
        facts.extend(credential(wanted));
    }
    let asked = if card.merged > 1 { format!(", {} times", card.merged) } else { String::new() };
    facts.push(("asked", format!("{}{asked}; {}", time::ago(&card.asked_at), state(card))));
    let mut text = format!("{}\n", shown(&card.question, FACT_MAX));
    text.extend(facts.iter().map(|(name, what)| format!("  {name:<10}  {}\n", shown(what, FACT_MAX))));
    if let Some(change) = &card.file_change {
        text.push_str("  keyward.toml of the project has changed:\n");
        text.extend(change.iter().take(CHANGE_LINES).map(|line| format!("    {}\n", shown(line, 300))));
        if change.len() > CHANGE_LINES {
            text.push_str(&format!("    and {} lines more\n", change.len() - CHANGE_LINES));
        }
    }
    text
}

fn credential(wanted: &WantedMsg) -> Vec<(&'static str, String)> {
    let reach = if wanted.reach.is_empty() { String::new() } else { format!(": {}", wanted.reach.join("; ")) };
    let delivery = wanted.delivery.word();
    // What a run holds already has its time.
    let time = if wanted.ttl_s > 0 { format!(", at most {}", time::words(wanted.ttl_s)) } else { String::new() };
    let before = format!("allowed {}, denied {}", times(wanted.allowed_before), times(wanted.denied_before));
    let mut lines = vec![
        ("credential", format!("{} ({}){reach}", wanted.profile, wanted.issuer)),
        ("  delivery", format!("{delivery}{time}: {}", wanted.gives_away)),
        ("  before", before),
    ];
    if wanted.confirm {
        lines.push(("  confirm", "it asks for the passphrase at each use".to_owned()));
    }
    lines
}

fn times(n: u64) -> String {
    match n {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

/// The processes, the asking one first.
pub(crate) fn chain(chain: &[ProcessMsg]) -> String {
    let words: Vec<String> = chain.iter().map(|process| format!("{} ({})", process.name, process.pid)).collect();
    if words.is_empty() { "a process that is gone".to_owned() } else { words.join(" < ") }
}

/// Where it stands, in words.
pub(crate) fn state(card: &ApprovalMsg) -> String {
    match card.state {
        ApprovalState::Open => format!("waits until {} UTC", time::clock(&card.until)),
        ApprovalState::Allowed => "allowed".to_owned(),
        ApprovalState::Denied => "denied".to_owned(),
        ApprovalState::Unanswered => "not answered, which is a no".to_owned(),
        ApprovalState::Withdrawn => "withdrawn".to_owned(),
    }
}

/// The word for an answer on the command line.
pub(crate) fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Deny => "deny",
        Decision::Once => "--once",
        Decision::Run => "--run",
        Decision::Project => "--project",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::{Value, json};

    /// A request with hostile texts, as a broker might hand it on that escapes nothing.
    pub(crate) fn card(change: impl FnOnce(&mut Value)) -> ApprovalMsg {
        let mut card = json!({
            "id": "7K2M9QXT", "kind": "run", "state": "open", "digest": "ab", "question": "Codex wants pg\u{1b}[2J",
            "app": "Codex", "program": "/usr/bin/codex", "verified": false,
            "chain": [{"pid": 7, "name": "codex"}, {"pid": 3, "name": "sh\n"}],
            "project": "/home/a/shop", "branch": "main", "command": "codex \u{202e}--yes", "reason": "tests\r\nDeny",
            "said": ["command", "reason", "app"],
            "wanted": [{"profile": "pg", "issuer": "static", "reach": ["db.example"], "delivery": "env",
                "gives_away": "the bytes", "ttl_s": 3600, "confirm": true, "allowed_before": 1, "denied_before": 0}],
            "file_change": ["+profiles = [\"pg\"]\u{1b}c", "-old"], "merged": 3, "asked_at": "2026-11-21T08:00:00Z",
            "changed_at": "2026-11-21T08:00:00Z", "until": "2999-01-01T00:00:00Z", "choices": ["once", "run"],
            "confirm": false
        });
        change(&mut card);
        serde_json::from_value(card).unwrap()
    }

    #[test]
    fn a_request_shows_what_is_decided_by_and_who_says_so() {
        let told = text(&card(|_| {}));
        for words in [
            "asked by    codex (7) < sh",
            "app         Codex (the requester says so)",
            "program     /usr/bin/codex (claimed: seen when it has started)",
            "project     /home/a/shop\n",
            "command     codex \\u{202e}--yes (the requester says so)",
            "credential  pg (static): db.example",
            "  delivery  env, at most 60 min: the bytes",
            "  before    allowed once, denied never",
            "asks for the passphrase at each use",
            ", 3 times; waits until 2999-01-01",
            "    +profiles = [\"pg\"]\\u{1b}c\n    -old\n",
        ] {
            assert!(told.contains(words), "{words}\n{told}");
        }
        let inside = text(&card(|c| {
            c["outer_run"] = "0199".into();
            c["outer_app"] = "Claude\u{1b}]0;x".into();
        }));
        assert!(inside.contains("inside      the run 0199 of Claude\\u{1b}]0;x"), "{inside}");
    }

    #[test]
    fn no_text_of_a_request_can_touch_the_terminal_or_begin_a_line() {
        let hostile = "x\u{1b}[2J\u{7}\r\nAllow\u{2028}\u{202e}\u{9b}1m";
        let told = text(&card(|c| {
            for field in [
                "question",
                "app",
                "program",
                "project",
                "branch",
                "command",
                "reason",
                "outer_run",
                "outer_app",
                "launcher",
            ] {
                c[field] = hostile.into();
            }
            c["chain"][0]["name"] = hostile.into();
            c["file_change"] = json!([hostile]);
            for field in ["profile", "issuer", "gives_away"] {
                c["wanted"][0][field] = hostile.into();
            }
            c["wanted"][0]["reach"] = json!([hostile]);
        }));
        assert!(told.chars().all(|c| c == '\n' || !c.is_control()), "{told:?}");
        assert!(!told.contains(['\u{2028}', '\u{202e}']) && !told.lines().any(|l| l.trim() == "Allow"), "{told}");
        let long = text(&card(|c| c["file_change"] = json!(vec!["+x"; 500])));
        assert!(long.contains("and 300 lines more"), "{long}");
    }
}
