//! Checks an exported log without a vault, a broker or a key of either.
//!
//! The file is JSON Lines: entries, then one trailer. The digest of the trailer is SHA-256 over all bytes before it, and its
//! signature is Ed25519 (RFC 8032) over `"keyward/export/v1" ‖ digest` by the export key of the vault. The key to check with
//! comes from the person who checks, never from the file. The links between entries are compared, but their MACs can only
//! be computed with the vault: `audit verify` does that. Called by `audit verify --file`.

use ed25519_dalek::{Signature, VerifyingKey};
use keyward_api::{AuditEntryMsg, HeadMsg};
use keyward_diag::{Code, Fault};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::{BufRead, Read};

/// Longest line that is read, in bytes: an entry of 64 KiB with its links, and room.
const LINE_MAX_BYTES: usize = 256 * 1024;

/// Most problems that are named.
const PROBLEMS_MAX: usize = 100;

const KEY_PREFIX: &str = "kwpub1:";

const SIGNED: &[u8] = b"keyward/export/v1";

/// What the check of a file gave.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The file is what the vault exported, to the byte.
    pub(crate) ok: bool,
    /// Entries that were read.
    pub(crate) entries: u64,
    /// The last entry of the file.
    pub(crate) head: Option<HeadMsg>,
    /// The export was made with filters, so entries between those of the file were left out.
    pub(crate) filtered: bool,
    /// What does not verify.
    pub(crate) problems: Vec<Problem>,
}

/// Something that does not verify.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Entry, or 0 for the file as a whole.
    pub(crate) seq: u64,
    /// `line`, `order`, `link`, `entry`, `trailer`, `count`, `head`, `digest`, `key` or `signature`.
    pub(crate) kind: &'static str,
}

/// The last line of a file.
#[derive(Debug, Deserialize)]
pub(crate) struct Last {
    /// The trailer.
    pub(crate) trailer: Trailer,
}

/// What the vault says about the entries above.
#[derive(Debug, Deserialize)]
pub(crate) struct Trailer {
    count: u64,
    first: Option<u64>,
    head: Option<HeadMsg>,
    #[serde(default)]
    filtered: bool,
    digest: String,
    /// Text form of the key that signed.
    pub(crate) key: String,
    signature: String,
}

/// Reads a public key: `kwpub1:` and 64 hexadecimal digits. Weak keys, under which anything verifies, are refused.
pub(crate) fn public_key(text: &str) -> Result<VerifyingKey, String> {
    let wrong = || "write the key as kwpub1: and 64 hexadecimal digits".to_owned();
    let mut bytes = [0; 32];
    let digits = text.trim().strip_prefix(KEY_PREFIX).ok_or_else(wrong)?;
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong())?;
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak()).ok_or_else(wrong)
}

/// Reads the whole file and checks it against the key.
///
/// # Errors
/// [`Code::FileUnreadable`] when it cannot be read; what does not verify is in the report.
pub(crate) fn verify(mut file: impl BufRead, key: &VerifyingKey) -> Result<Report, Fault> {
    let mut chain = Chain::default();
    let mut digest = Sha256::new();
    let mut waiting = next_line(&mut file)?;
    while let Some(line) = waiting.take() {
        waiting = next_line(&mut file)?;
        if waiting.is_some() {
            digest.update(&line);
            chain.entry(&line);
        } else {
            chain.trailer(&line, digest.clone().finalize().into(), key);
        }
    }
    if !chain.closed {
        chain.note(0, "trailer");
    }
    let head = chain.last.map(|(seq, mac)| HeadMsg { seq, mac });
    let ok = chain.problems.is_empty();
    Ok(Report { ok, entries: chain.entries, head, filtered: chain.filtered, problems: chain.problems })
}

/// The trailer, if the line is one.
pub(crate) fn trailer(line: &[u8]) -> Option<Trailer> {
    serde_json::from_slice::<Last>(line).ok().map(|last| last.trailer)
}

/// The next line with its line end; `None` at the end of the file.
fn next_line(file: &mut impl BufRead) -> Result<Option<Vec<u8>>, Fault> {
    let unreadable = |why: String| Fault::new(Code::FileUnreadable).cause(why);
    let mut line = Vec::new();
    let mut bounded = file.take(LINE_MAX_BYTES as u64);
    bounded.read_until(b'\n', &mut line).map_err(|e| unreadable(e.to_string()))?;
    if line.len() == LINE_MAX_BYTES && !line.ends_with(b"\n") {
        return Err(unreadable(format!("a line is longer than {LINE_MAX_BYTES} bytes, so this is no exported log")));
    }
    Ok((!line.is_empty()).then_some(line))
}

#[derive(Default)]
struct Chain {
    entries: u64,
    first: Option<u64>,
    last: Option<(u64, String)>,
    /// Entries after which some are left out: right only in a filtered export.
    gaps: Vec<u64>,
    filtered: bool,
    closed: bool,
    problems: Vec<Problem>,
}

impl Chain {
    fn note(&mut self, seq: u64, kind: &'static str) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { seq, kind });
        }
    }

    fn entry(&mut self, line: &[u8]) {
        self.entries += 1;
        let Ok(found) = serde_json::from_slice::<AuditEntryMsg>(line) else {
            return self.note(self.last.as_ref().map_or(1, |(seq, _)| seq.saturating_add(1)), "line");
        };
        if found.entry["seq"] != found.seq {
            self.note(found.seq, "entry");
        }
        if let Some((seq, mac)) = self.last.take() {
            if found.seq <= seq {
                self.note(found.seq, "order");
            } else if found.seq == seq + 1 {
                if found.prev != mac {
                    self.note(found.seq, "link");
                }
            } else if self.gaps.len() < PROBLEMS_MAX {
                self.gaps.push(seq);
            }
        }
        self.first = self.first.or(Some(found.seq));
        self.last = Some((found.seq, found.mac));
    }

    fn trailer(&mut self, line: &[u8], digest: [u8; 32], key: &VerifyingKey) {
        let Some(trailer) = trailer(line) else { return };
        self.closed = true;
        self.filtered = trailer.filtered;
        if !trailer.filtered {
            for seq in std::mem::take(&mut self.gaps) {
                self.note(seq + 1, "link");
            }
        }
        if trailer.count != self.entries || trailer.first != self.first {
            self.note(0, "count");
        }
        let head = trailer.head.map(|head| (head.seq, head.mac));
        if !trailer.filtered && head != self.last {
            self.note(0, "head");
        }
        if trailer.key != format!("{KEY_PREFIX}{}", hex::encode(key.as_bytes())) {
            self.note(0, "key");
        }
        if trailer.digest != hex::encode(digest) {
            return self.note(0, "digest");
        }
        let signature = hex::decode(&trailer.signature).ok().and_then(|s| Signature::from_slice(&s).ok());
        let message = [SIGNED, &digest].concat();
        if signature.is_none_or(|signature| key.verify_strict(&message, &signature).is_err()) {
            self.note(0, "signature");
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use serde_json::json;

    fn lines(seqs: &[u64]) -> Vec<String> {
        seqs.iter()
            .map(|n| {
                format!(
                    "{}\n",
                    json!({"seq": n, "entry": {"seq": n}, "prev": format!("m{}", n - 1), "mac": format!("m{n}")})
                )
            })
            .collect()
    }

    fn signed(lines: &[String], filtered: bool) -> String {
        let key = SigningKey::from_bytes(&[7; 32]);
        let body = lines.concat();
        let digest: [u8; 32] = Sha256::digest(&body).into();
        let entry = |line: &String| serde_json::from_str::<AuditEntryMsg>(line).unwrap();
        let head = lines.last().map(entry).map(|e| json!({"seq": e.seq, "mac": e.mac}));
        let trailer = json!({"trailer": {
            "count": lines.len(), "first": lines.first().map(|l| entry(l).seq), "head": head, "filtered": filtered,
            "digest": hex::encode(digest), "key": format!("kwpub1:{}", hex::encode(key.verifying_key().as_bytes())),
            "signature": hex::encode(key.sign(&[SIGNED, &digest].concat()).to_bytes()),
        }});
        format!("{body}{trailer}\n")
    }

    fn check(file: &str) -> Report {
        verify(file.as_bytes(), &SigningKey::from_bytes(&[7; 32]).verifying_key()).unwrap()
    }

    fn kinds(file: &str) -> Vec<&'static str> {
        check(file).problems.iter().map(|p| p.kind).collect()
    }

    #[test]
    fn what_the_vault_wrote_verifies() {
        let report = check(&signed(&lines(&[1, 2, 3]), false));
        assert!(report.ok && report.entries == 3 && report.head.is_some_and(|h| h.seq == 3), "{:?}", report.problems);
        assert!(check(&signed(&lines(&[2, 5, 9]), true)).ok);
        assert!(check(&signed(&[], false)).ok);
        assert!(check(signed(&lines(&[1]), false).trim_end()).ok, "the last line end may be missing");
    }

    #[test]
    fn every_change_is_found() {
        let honest = signed(&lines(&[1]), false);
        // The name of this field may be lost: a log without gaps is the same with and without it.
        let filtered = honest.find("filtered").unwrap();
        for at in
            (0..honest.len() - 1).filter(|at| !(filtered..filtered + 8).contains(at) && (*at < filtered || at % 3 == 0))
        {
            let mut bytes = honest.clone().into_bytes();
            bytes[at] ^= 1;
            let found = verify(bytes.as_slice(), &SigningKey::from_bytes(&[7; 32]).verifying_key());
            assert!(!found.unwrap().ok, "byte {at}");
        }
        let honest = signed(&lines(&[1, 2, 3]), false);
        let all: Vec<&str> = honest.lines().collect();
        let join = |parts: &[&str]| parts.iter().map(|p| format!("{p}\n")).collect::<String>();
        assert!(kinds(&join(&[all[0], all[2], all[3]])).contains(&"digest"), "removed");
        assert!(kinds(&join(&[all[1], all[0], all[2], all[3]])).contains(&"order"), "swapped");
        assert!(kinds(&join(&[all[0], all[0], all[1], all[2], all[3]])).contains(&"order"), "doubled");
        assert_eq!(kinds(&join(&all[..3])), ["trailer"], "no trailer");
        assert_eq!(kinds(""), ["trailer"]);
        assert!(kinds(&join(&[all[3]])).contains(&"count"), "emptied");
        assert!(kinds(&join(&[all[0], all[1], all[2], all[3], all[3]])).contains(&"line"), "two trailers");
    }

    #[test]
    fn a_signature_does_not_excuse_links_that_do_not_fit() {
        assert_eq!(kinds(&signed(&lines(&[1, 3]), false)), ["link"]);
        let mut wrong = lines(&[1, 2]);
        wrong[1] = wrong[1].replace("m1", "mx");
        assert_eq!(kinds(&signed(&wrong, true)), ["link"]);
    }

    #[test]
    fn the_key_of_the_file_counts_for_nothing() {
        let file = signed(&lines(&[1]), false);
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        let found: Vec<_> = verify(file.as_bytes(), &other).unwrap().problems.iter().map(|p| p.kind).collect();
        assert_eq!(found, ["key", "signature"]);
    }

    #[test]
    fn hostile_files_end() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert!(verify(endless, &SigningKey::from_bytes(&[7; 32]).verifying_key()).is_err());
        let report = check(&"\n".repeat(10_000));
        assert!(!report.ok && report.problems.len() <= PROBLEMS_MAX + 1);
    }

    #[test]
    fn keys_of_another_form_are_refused() {
        let weak = format!("kwpub1:01{}", "00".repeat(31));
        for bad in ["", "kwpub1:", "kwpub1:zz", &weak, &"0".repeat(64)] {
            assert!(public_key(bad).is_err(), "{bad}");
        }
    }
}
