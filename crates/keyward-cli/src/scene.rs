//! A throw-away home for tests of what is said about a machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use keyward_find::find::{Around, Found};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A home and a project below it, removed at the end.
pub(crate) struct Scene {
    pub(crate) root: PathBuf,
    pub(crate) around: Around,
}

impl Scene {
    pub(crate) fn new(variables: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("keyward-scene-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("home/proj/.git")).unwrap();
        fs::create_dir_all(root.join("home/proj/sub")).unwrap();
        let around = Around {
            variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            home: Some(root.join("home")),
            cwd: root.join("home/proj/sub"),
            system: root.join("system"),
        };
        Self { root, around }
    }

    /// Writes a file below the home folder, or below the root of the system with a leading slash.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = match name.strip_prefix('/') {
            Some(name) => self.root.join("system").join(name),
            None => self.root.join("home").join(name),
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn found(&self) -> Found {
        Found::everywhere(&self.around)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.root));
    }
}
