//! The real desktop program with its window, driven through WebKitWebDriver (W3C WebDriver).

use crate::bus::Bus;
use crate::display::Display;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use keyward_testkit::{Home, signal, wait_at_most};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long anything on the screen may take; a slow machine needs some of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The environment of the desktop program.
pub(crate) fn environment(command: &mut Command, bus: &Bus, display: &Display) {
    command.env("DISPLAY", display.name()).env("DBUS_SESSION_BUS_ADDRESS", bus.address());
    // In the plain C locale the toolkit cannot write a title that is more than ASCII where xdotool reads it.
    command.env("LC_ALL", "C.UTF-8");
    // Without them pictures are stale, and an accessibility bus is looked for that is not there.
    command.env("WEBKIT_DISABLE_DMABUF_RENDERER", "1").env("NO_AT_BRIDGE", "1");
}

/// The program without a driver: its tray and its native windows are all that a test can reach.
pub(crate) struct Desktop(Child);

impl Desktop {
    #[track_caller]
    pub(crate) fn start(home: &Home, bus: &Bus, display: &Display, args: &[&str]) -> Self {
        let mut command = home.command(home.bin().join("keyward-desktop"));
        environment(command.args(args), bus, display);
        let log = std::fs::File::create(home.root.join("desktop.log")).unwrap();
        Self(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Waits until it has ended, and says how.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<i32> {
        let mut status = None;
        wait_at_most(PATIENCE, "the end of the desktop", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|s| s.code())
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        signal(self.pid(), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// The program with a driver.
pub(crate) struct Screen {
    runtime: Runtime,
    client: Client,
    driver: Child,
}

impl Screen {
    #[track_caller]
    pub(crate) fn start(home: &Home, bus: &Bus, display: &Display) -> Self {
        // The port is free at this moment; the driver takes no other word for it.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        let mut driver = home.command("WebKitWebDriver");
        driver.args(["--host=127.0.0.1", &format!("--port={port}")]);
        environment(&mut driver, bus, display);
        driver.env("TAURI_WEBVIEW_AUTOMATION", "true");
        let log = std::fs::File::create(home.root.join("driver.log")).unwrap();
        let driver = driver.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        wait_at_most(PATIENCE, "the driver", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let program = home.bin().join("keyward-desktop");
        let capabilities = json!({"webkitgtk:browserOptions": {"binary": program, "args": []}});
        let Value::Object(capabilities) = capabilities else { unreachable!("an object") };
        let client = runtime.block_on(async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            let address = format!("http://127.0.0.1:{port}");
            // A build without the feature `automation` opens its window and never answers the driver.
            tokio::time::timeout(PATIENCE * 2, builder.capabilities(capabilities).connect(&address)).await
        });
        Self { runtime, client: client.unwrap().unwrap(), driver }
    }

    /// Turns to the card window from now on, as soon as there is one.
    #[track_caller]
    pub(crate) fn to_card(&self) {
        wait_at_most(PATIENCE, "the page of the card", || {
            self.runtime.block_on(async {
                for window in self.client.windows().await.unwrap_or_default() {
                    if self.client.switch_to_window(window).await.is_err() {
                        continue;
                    }
                    let at = self.client.current_url().await;
                    if at.is_ok_and(|at| at.path().ends_with("card.html")) {
                        return true;
                    }
                }
                false
            })
        });
    }

    /// What a person reads on the screen.
    pub(crate) fn text(&self) -> String {
        self.script("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Runs a script in the page; what it returns.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.runtime.block_on(self.client.execute(script, Vec::new())).unwrap_or(Value::Null)
    }

    /// Waits until the screen says `text`.
    #[track_caller]
    pub(crate) fn wait(&self, text: &str) {
        self.wait_until(&format!("`{text}` on the screen"), |shown| shown.contains(text));
    }

    /// Waits until what the screen says is as it should be.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, is: impl Fn(&str) -> bool) {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if is(&text) {
                return;
            }
            assert!(std::time::Instant::now() < until, "waited in vain for {what}; the screen says:\n{text}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Clicks what can be clicked and has this name: a button, link, tab or menu item.
    #[track_caller]
    pub(crate) fn click(&self, name: &str) {
        let quoted = format!("'{}'", name.replace('\'', "’"));
        let way = format!(
            "//*[self::button or self::a or self::summary or @role='tab' or @role='menuitem' or @role='option']\
             [not(@disabled)][normalize-space(.)={quoted} or @aria-label={quoted} or @title={quoted}]"
        );
        self.click_at(&way);
    }

    /// Clicks the element of an XPath, as soon as it takes a click.
    #[track_caller]
    pub(crate) fn click_at(&self, way: &str) {
        let mut last;
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let clicked = self.runtime.block_on(async {
                let found = self.client.find(Locator::XPath(way)).await?;
                // As a person does who does not see it whole.
                let element = serde_json::to_value(&found).unwrap_or_default();
                self.client.execute("arguments[0].scrollIntoView({block: 'center'})", vec![element]).await?;
                found.click().await
            });
            match clicked {
                Ok(()) => return,
                Err(e) => last = format!("{e:?}"),
            }
            assert!(std::time::Instant::now() < until, "no click on {way}: {last}; the screen says:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Writes into the field with this label.
    #[track_caller]
    pub(crate) fn fill(&self, label: &str, text: &str) {
        let way = format!(
            "//*[self::input or self::textarea][@aria-label='{label}' or @placeholder='{label}' or \
             @id=//label[starts-with(normalize-space(.), '{label}')]/@for or \
             ancestor::label[starts-with(normalize-space(.), '{label}')]]"
        );
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let filled = self.runtime.block_on(async {
                let found = self.client.find(Locator::XPath(&way)).await?;
                let element = serde_json::to_value(&found).unwrap_or_default();
                self.client.execute("arguments[0].scrollIntoView({block: 'center'})", vec![element]).await?;
                found.clear().await?;
                found.send_keys(text).await
            });
            let Err(e) = filled else { return };
            assert!(std::time::Instant::now() < until, "no field {label}: {e:?}; the screen says:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The driver ends the program with its session.
        let close = self.client.clone().close();
        let _ = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, close).await });
        signal(self.driver.id().cast_signed(), Signal::TERM);
        let _ = self.driver.wait();
    }
}
