//! A rekey that was cut short: one passphrase opens the vault, the other one does not.

use crate::broker::Fallible;
use crate::{DRAFT, REKEY, is_sound};
use keyward_testkit::PASSPHRASE;

#[test]
fn exactly_one_passphrase_opens_a_vault_whose_rekey_was_cut_short() {
    let mut vault = Fallible::new();
    vault.home.static_profile("p", "s3cret", "T");
    let mut passphrase = PASSPHRASE.to_owned();
    let mut rekeyed = 0;
    for point in [DRAFT, REKEY].concat() {
        vault.again();
        let next = format!("the passphrase of {point}");
        let lines = format!("{}\n{next}\n", vault.recovery);
        vault.dies_in(point, |home| home.keyward_in(&["vault", "rekey", "--recovery", "--passphrase-stdin"], &lines));
        let done = matches!(point, "slots.renamed" | "finish.anchor");
        let (opens, fails) = if done { (next, passphrase) } else { (passphrase, next) };
        let unlock = |with: &str| vault.home.keyward_in(&["unlock", "--passphrase-stdin"], with);
        unlock(&fails).exits(1).says("vault.wrong_passphrase");
        unlock(&opens).exits(0);
        unlock(&fails).exits(1).says("vault.wrong_passphrase");
        rekeyed += usize::from(done);
        assert_eq!(vault.reveal("p").as_deref(), Some("s3cret"), "{point}: the recovery key goes on to prove");
        assert_eq!(vault.home.audit_kinds().iter().filter(|k| *k == "vault.rekeyed").count(), rekeyed, "{point}");
        vault.home.keyward(&["run", "-p", "p", "--", "true"]).exits(0);
        is_sound(&vault);
        passphrase = opens;
    }
}
