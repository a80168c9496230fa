//! The first five minutes: from an empty home to the first verified entry.

use crate::Stage;
use keyward_testkit::PASSPHRASE;

#[test]
fn a_first_run_ends_with_a_verified_entry() {
    let stage = Stage::new();
    let screen = stage.screen();
    screen.wait("Make the vault");
    screen.click("Make the vault…");
    stage.display.focus(&stage.home, "Make the vault");
    stage.display.write(&stage.home, PASSPHRASE);
    stage.display.press(&stage.home, "Tab");
    stage.display.write(&stage.home, PASSPHRASE);
    stage.display.press(&stage.home, "Return");
}
