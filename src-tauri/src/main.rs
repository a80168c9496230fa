//! The desktop program of Keyward: tray, window, native prompts, notifications.
//!
//! Hands the commands of its web view to `keyward-desk` and shows what that crate says. Closes itself to other processes
//! before anything else. Never keeps a run alive or ends one by its own life: programs that it starts have a terminal
//! session of their own, and the broker goes on without it. Never gives a secret to the web view.

mod act;
mod bus;
mod clipboard;
mod command;
mod guard;
mod instance;
mod log;
mod prompt;
mod theme;
mod tray;
mod warm;
mod window;

use keyward_api::place::Places;
use keyward_desk::{Desk, FromBus, Notices};
use keyward_diag::{Code, Fault};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use tauri::{Manager as _, RunEvent};

#[global_allocator]
static ALLOCATOR: keyward_secret::WipingAllocator = keyward_secret::WipingAllocator;

const USAGE: &str = "\
Keyward hands short-lived credentials to programs. This is its tray, its window and its prompts.

Usage: keyward-desktop [--hidden]

      --hidden   Start in the tray, without a window
      --version  Print the version
  -h, --help     Print this

Closing the window leaves the tray; Quit in its menu or in Settings ends the program, and asks about programs that run.
Starting it again opens the window of the one that runs. KEYWARD_HOME names another vault than the usual one.
";

fn main() -> ExitCode {
    let ended = guard::close().and_then(|()| guard::check(std::env::vars_os())).and_then(|()| start());
    match ended {
        Ok(code) => code,
        Err(fault) => {
            // Without standard error nobody can be told.
            drop(writeln!(std::io::stderr(), "{fault}"));
            ExitCode::from(fault.exit)
        }
    }
}

fn start() -> Result<ExitCode, Fault> {
    let mut hidden = false;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--hidden") => hidden = true,
            Some("--version") => return Ok(print(concat!("keyward-desktop ", env!("CARGO_PKG_VERSION"), "\n"))),
            Some("--help" | "-h") => return Ok(print(USAGE)),
            _ => {
                let shown = keyward_diag::plain(&argument.to_string_lossy(), 80);
                let fault = Fault::new(Code::Usage).cause(format!("`{shown}` is not an option"));
                return Err(fault.help("see `keyward-desktop --help`"));
            }
        }
    }
    let places = Places::current()?;
    gtk::init().map_err(|_| no_display())?;
    // Reading its settings, GTK loads what they name.
    drop(gtk::Settings::default());
    guard::check_loaded()?;
    let Some(instance) = instance::take(&places)? else {
        if !hidden {
            instance::ask(&places)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    run(places, &instance, hidden)
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn no_display() -> Fault {
    let set = ["WAYLAND_DISPLAY", "DISPLAY"]
        .map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()).map(|v| (name, v)));
    let set: Vec<_> = set.into_iter().flatten().collect();
    let fault = Fault::new(Code::DesktopDisplay);
    if set.is_empty() {
        return fault.cause("neither WAYLAND_DISPLAY nor DISPLAY is set");
    }
    set.iter().fold(fault, |fault, (name, value)| {
        fault.cause(format!("{name} is {}, which cannot be opened", keyward_diag::plain(value, 80)))
    })
}

/// Runs until the person quits.
fn run(places: Places, instance: &instance::Instance, hidden: bool) -> Result<ExitCode, Fault> {
    let failed = |e: tauri::Error| Fault::new(Code::Internal).cause(e);
    let title = places.home.as_ref().map_or_else(
        || "Keyward".to_owned(),
        |home| format!("Keyward — {}", keyward_diag::plain(&home.display().to_string(), 200)),
    );
    let app = command::add(tauri::Builder::default()).build(context()).map_err(failed)?;
    let handle = app.handle().clone();
    let prompts = prompt::Prompts::new(handle.clone(), places.home.clone());
    let heard = handle.clone();
    let environment = std::env::vars_os().collect();
    let desk = Desk::new(places, environment, Arc::new(prompts), move |event| window::tell(&heard, &event))?;
    let desk = Arc::new(desk);
    app.manage(Arc::clone(&desk));
    app.manage(window::Title(title));
    app.manage(window::Cards::default());
    let colours = Arc::new(theme::Colours::new());
    if let Ok(settings) = desk.settings() {
        colours.set(settings.theme);
    }
    if !hidden {
        window::open(&handle, None);
    }
    let acts = act::Acts::new(handle.clone(), Arc::clone(&desk));
    let second = handle.clone();
    instance.serve(move || window::open(&second, None))?;
    around(&desk, acts, colours)?;
    warm::start(&handle);
    let code = app.run_return(|_, event| match event {
        // The last window was closed: the tray stays.
        RunEvent::ExitRequested { code: None, api, .. } => api.prevent_exit(),
        RunEvent::Exit => clipboard::clear(),
        _ => {}
    });
    Ok(if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is built into the program: the UI, its policy, and the permissions of the window.
#[expect(clippy::disallowed_methods, reason = "the macro ends the program where an iOS thread cannot be made")]
fn context() -> tauri::Context {
    tauri::generate_context!()
}

/// Starts what follows the broker: tray, notifications, colours.
fn around(desk: &Arc<Desk>, acts: Arc<act::Acts>, colours: Arc<theme::Colours>) -> Result<(), Fault> {
    let act: tray::Act = {
        let acts = Arc::clone(&acts);
        Arc::new(move |asked: FromBus| acts.act(asked))
    };
    let zone = jiff::tz::TimeZone::system();
    let first = keyward_desk::tray(None, jiff::Timestamp::now(), &zone);
    let preferring = Arc::clone(&colours);
    let (desk_of_watch, act_of_bus) = (Arc::clone(desk), Arc::clone(&act));
    let mut notices = Notices::new();
    let mut hosts = None;
    desk.watch(move |overview| {
        // On this thread, since the bus may take its time.
        let (tray, bus) = hosts.get_or_insert_with(|| {
            let preferring = Arc::clone(&preferring);
            let bus = bus::Bus::connect(Arc::clone(&act_of_bus), move |dark| preferring.session(dark));
            acts.tells_by(bus.clone());
            (tray::start(first.clone(), Arc::clone(&act)), bus)
        });
        let now = jiff::Timestamp::now();
        if let Some(tray) = tray {
            tray.show(keyward_desk::tray(overview, now, &zone));
        }
        let Ok(settings) = desk_of_watch.settings() else { return };
        colours.set(settings.theme);
        for change in notices.plan(overview, settings.notifications, now, &zone) {
            if let Some(bus) = bus {
                bus.change(change);
            }
        }
    })?;
    desk.follow()
}
