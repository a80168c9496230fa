//! The revocation endpoint of OAuth 2.0 (RFC 7009): ends one token that was minted here, of whatever service.
//!
//! A token that is not known is answered as one that was ended, as section 2.2 says. Called by [`crate::serve`].

use crate::answer::{Answer, Asked};
use crate::fault::{At, struck};
use crate::sandbox::Sandbox;
use crate::show::fingerprint;

const FIELDS: [&str; 4] = ["token", "token_type_hint", "client_id", "client_secret"];

/// Answers one request.
pub(crate) fn revoke(sandbox: &Sandbox, asked: &Asked) -> Result<Answer, String> {
    let form = asked.form(&FIELDS);
    let sent = form.as_ref().ok().and_then(|form| form.get("token")).map_or("", String::as_str);
    struck(sandbox, asked, At::Revoke, sent, |kept| {
        let invalid = |reason| Ok(Answer::oauth_error(400, "invalid_request", "the sandbox does not take it", reason));
        if let Err(reason) = &form {
            return invalid(reason);
        }
        if sent.is_empty() {
            return invalid("field_missing");
        }
        let mut answer = Answer::text(200, "text/plain", String::new());
        if kept {
            let mut state = sandbox.state();
            let ended = state.end(sent);
            state.counts.revocations += u64::from(ended);
            answer.note.reason = (!ended).then_some("unknown_token");
        }
        answer.note.token = Some(fingerprint(sent.as_bytes()));
        Ok(answer)
    })
}
