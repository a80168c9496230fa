//! The tray: the model of `keyward-desk`, shown by the panel.
//!
//! On Linux by StatusNotifierItem and its menu over the session bus. Where no panel shows such items the program works with
//! its window alone, and says so once.

use crate::log;
use keyward_desk::{FromBus, Glyph, Screen, Tray, TrayItem};
use ksni::blocking::{Handle, TrayMethods as _};
use ksni::menu::{MenuItem, StandardItem, SubMenu};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tauri::image::Image;
use tauri::include_image;

/// Whatever shows a tray.
pub(crate) trait TrayHost: Send {
    /// Shows this from now on.
    fn show(&self, tray: Tray);
}

/// What a click asks for; returns at once, whatever is done then.
pub(crate) type Act = Arc<dyn Fn(FromBus) + Send + Sync>;

/// Puts the tray into the panel, when there is one or as soon as there is. `None` without a session bus.
pub(crate) fn start(tray: Tray, act: Act) -> Option<Box<dyn TrayHost>> {
    let item = Item { tray, act, icons: Icons::new(), said: AtomicBool::new(false) };
    match item.assume_sni_available(true).spawn() {
        Ok(handle) => Some(Box::new(handle)),
        Err(e) => {
            log::line(&format!("no tray, the window alone: {e}"));
            None
        }
    }
}

impl TrayHost for Handle<Item> {
    fn show(&self, tray: Tray) {
        // None once the item was shut down, at the end of the program.
        let _ = self.update(|item| item.tray = tray);
    }
}

/// The item in the panel.
struct Item {
    tray: Tray,
    act: Act,
    icons: Icons,
    said: AtomicBool,
}

impl ksni::Tray for Item {
    fn id(&self) -> String {
        "keyward".to_owned()
    }

    fn title(&self) -> String {
        "Keyward".to_owned()
    }

    fn status(&self) -> ksni::Status {
        if self.tray.glyph == Glyph::Waiting { ksni::Status::NeedsAttention } else { ksni::Status::Active }
    }

    fn icon_pixmap(&self) -> Vec<ksni::Icon> {
        self.icons.of(self.tray.glyph)
    }

    fn attention_icon_pixmap(&self) -> Vec<ksni::Icon> {
        self.icons.of(Glyph::Waiting)
    }

    fn tool_tip(&self) -> ksni::ToolTip {
        ksni::ToolTip { title: self.tray.tooltip.clone(), ..ksni::ToolTip::default() }
    }

    fn activate(&mut self, _x: i32, _y: i32) {
        (self.act)(FromBus::Open(Screen::Now));
    }

    fn menu(&self) -> Vec<MenuItem<Self>> {
        items(&self.tray.menu)
    }

    fn watcher_online(&self) {
        self.said.store(false, Ordering::Relaxed);
    }

    fn watcher_offline(&self, _reason: ksni::OfflineReason) -> bool {
        if !self.said.swap(true, Ordering::Relaxed) {
            log::line("no panel shows tray icons: start keyward-desktop again to open its window");
        }
        true
    }
}

fn items(menu: &[TrayItem]) -> Vec<MenuItem<Item>> {
    menu.iter()
        .map(|item| match item {
            TrayItem::Separator => MenuItem::Separator,
            TrayItem::Entry { label, act, .. } => {
                let (label, enabled, act) = (label.clone(), act.is_some(), act.clone());
                let activate = Box::new(move |item: &mut Item| {
                    if let Some(act) = &act {
                        (item.act)(act.clone());
                    }
                });
                StandardItem { label, enabled, activate, ..StandardItem::default() }.into()
            }
            TrayItem::Menu { label, items: inner, .. } => {
                SubMenu { label: label.clone(), submenu: items(inner), ..SubMenu::default() }.into()
            }
        })
        .collect()
}

/// The drawings of `icons/`, as the panel takes them.
struct Icons {
    good: Vec<ksni::Icon>,
    soon: Vec<ksni::Icon>,
    waiting: Vec<ksni::Icon>,
    locked: Vec<ksni::Icon>,
}

impl Icons {
    fn new() -> Self {
        let all = |drawings: [Image<'static>; 6]| drawings.iter().map(icon).collect();
        Self {
            good: all([
                include_image!("../icons/png/tray-good-16.png"),
                include_image!("../icons/png/tray-good-22.png"),
                include_image!("../icons/png/tray-good-24.png"),
                include_image!("../icons/png/tray-good-32.png"),
                include_image!("../icons/png/tray-good-48.png"),
                include_image!("../icons/png/tray-good-64.png"),
            ]),
            soon: all([
                include_image!("../icons/png/tray-soon-16.png"),
                include_image!("../icons/png/tray-soon-22.png"),
                include_image!("../icons/png/tray-soon-24.png"),
                include_image!("../icons/png/tray-soon-32.png"),
                include_image!("../icons/png/tray-soon-48.png"),
                include_image!("../icons/png/tray-soon-64.png"),
            ]),
            waiting: all([
                include_image!("../icons/png/tray-waiting-16.png"),
                include_image!("../icons/png/tray-waiting-22.png"),
                include_image!("../icons/png/tray-waiting-24.png"),
                include_image!("../icons/png/tray-waiting-32.png"),
                include_image!("../icons/png/tray-waiting-48.png"),
                include_image!("../icons/png/tray-waiting-64.png"),
            ]),
            locked: all([
                include_image!("../icons/png/tray-locked-16.png"),
                include_image!("../icons/png/tray-locked-22.png"),
                include_image!("../icons/png/tray-locked-24.png"),
                include_image!("../icons/png/tray-locked-32.png"),
                include_image!("../icons/png/tray-locked-48.png"),
                include_image!("../icons/png/tray-locked-64.png"),
            ]),
        }
    }

    fn of(&self, glyph: Glyph) -> Vec<ksni::Icon> {
        match glyph {
            Glyph::Good => &self.good,
            Glyph::Soon => &self.soon,
            Glyph::Waiting => &self.waiting,
            Glyph::Locked => &self.locked,
        }
        .clone()
    }
}

/// RGBA to ARGB in network byte order.
fn icon(drawing: &Image<'_>) -> ksni::Icon {
    let mut data = drawing.rgba().to_vec();
    for pixel in data.chunks_exact_mut(4) {
        pixel.rotate_right(1);
    }
    let side = |pixels: u32| i32::try_from(pixels).unwrap_or(0);
    ksni::Icon { width: side(drawing.width()), height: side(drawing.height()), data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_drawing_of_its_own_in_each_size() {
        let icons = Icons::new();
        let glyphs = [Glyph::Good, Glyph::Soon, Glyph::Waiting, Glyph::Locked];
        for glyph in glyphs {
            let sizes: Vec<_> = icons.of(glyph).iter().map(|i| (i.width, i.height, i.data.len())).collect();
            let square = |side: i32| (side, side, (side * side * 4).unsigned_abs() as usize);
            assert_eq!(sizes, [16, 22, 24, 32, 48, 64].map(square), "{glyph:?}");
            for other in glyphs.into_iter().filter(|other| *other != glyph) {
                assert_ne!(icons.of(glyph)[0].data, icons.of(other)[0].data, "{glyph:?} looks like {other:?}");
            }
        }
        // The first byte of a pixel is its opacity: the corners are clear and the middle is not.
        let good = &icons.of(Glyph::Good)[0];
        assert_eq!(good.data[0], 0);
        assert_eq!(good.data[(8 * 16 + 4) * 4], 255);
    }
}
