//! The real desktop program on an X server, a session bus, a broker and a sandbox of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attack;
mod bus;
mod card;
mod display;
mod first;
mod notify;
mod screen;
mod tray;
mod work;

use bus::{Bus, Notifications, Tray};
use display::Display;
use keyward_testkit::{Home, PASSPHRASE};
use screen::{Desktop, Screen};

/// What a session of a desktop consists of. The services end before the home, whose folder they use.
struct Stage {
    tray: Tray,
    notifications: Notifications,
    display: Display,
    bus: Bus,
    home: Home,
}

impl Stage {
    /// An empty home.
    fn new() -> Self {
        Self::around(Home::new())
    }

    /// A home with an open vault.
    fn with_vault() -> Self {
        Self::around(Home::with_vault())
    }

    fn around(home: Home) -> Self {
        let built = keyward_testkit::target().join("keyward-desktop");
        let own = home.bin().join("keyward-desktop");
        std::fs::hard_link(&built, &own).or_else(|_| std::fs::copy(&built, &own).map(drop)).unwrap();
        let bus = Bus::start(&home);
        let (tray, notifications) = (Tray::start(&bus), Notifications::start(&bus));
        Self { tray, notifications, display: Display::start(&home), bus, home }
    }

    /// The program with its window, driven.
    #[track_caller]
    fn screen(&self) -> Screen {
        Screen::start(&self.home, &self.bus, &self.display)
    }

    /// The program without a driver.
    #[track_caller]
    fn desktop(&self, args: &[&str]) -> Desktop {
        Desktop::start(&self.home, &self.bus, &self.display, args)
    }

    /// Types the passphrase into the native prompt of this title.
    #[track_caller]
    fn prove(&self, title: &str) {
        self.answer(title, PASSPHRASE);
    }

    /// Types into the native prompt of this title and confirms.
    #[track_caller]
    fn answer(&self, title: &str, text: &str) {
        self.display.focus(&self.home, title);
        self.display.write(&self.home, text);
        self.display.press(&self.home, "Return");
        self.display.gone(&self.home, title);
    }
}
