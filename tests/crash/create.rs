//! A vault that is being made is there and opens, or is not there and can be made.

use crate::broker::Fallible;
use crate::{CREATE, DRAFT, is_sound};
use keyward_testkit::PASSPHRASE;

#[test]
fn a_vault_is_made_as_a_whole_or_not_at_all() {
    for point in [DRAFT, CREATE].concat() {
        let vault = Fallible::without_vault();
        vault.dies_in(point, |home| home.keyward_in(&["init", "--passphrase-stdin"], PASSPHRASE));
        let made = matches!(point, "slots.renamed" | "finish.anchor");
        let state = vault.home.keyward(&["status", "--json"]).exits(0).json()["vault"]["state"].clone();
        assert_eq!(state, if made { "locked" } else { "absent" }, "{point}");
        if made {
            vault.home.keyward_in(&["init", "--passphrase-stdin"], PASSPHRASE).exits(1).says("vault.exists");
            vault.home.unlock();
        } else {
            vault.home.keyward_in(&["unlock", "--passphrase-stdin"], PASSPHRASE).exits(1).says("vault.absent");
            vault.home.init();
        }
        vault.home.secret("s", "s3cret");
        assert_eq!(vault.home.audit_kinds().iter().filter(|k| *k == "vault.initialised").count(), 1, "{point}");
        is_sound(&vault);
    }
}
