use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ipc_core::Name;

/// A directory of one test's own, gone with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(word: &str, mode: u32) -> Self {
        let path = std::env::temp_dir().join(format!("ipc-core-{word}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Self(path)
    }

    pub(crate) fn name(&self, word: &str) -> Name {
        self.0.join(word).to_str().unwrap().parse().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
