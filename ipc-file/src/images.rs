//! The segments of a log as bytes, to be put back and opened.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipc_core::{Receiver as _, RecvError, Wait};

use crate::{Follower, Options, Start};

ipc_process::test_support!();

pub(crate) type Image = BTreeMap<String, Vec<u8>>;

/// Where a log is made again and again, in a directory that goes with the test, also when that is killed.
pub(crate) struct Place {
    pub(crate) log: PathBuf,
    _parent: ipc_conformance::Scratch,
}

impl Place {
    pub(crate) fn new() -> Self {
        let parent = ipc_conformance::Scratch::in_memory();
        Self {
            log: parent.path().join("log"),
            _parent: parent,
        }
    }

    pub(crate) fn clear(&self) {
        let _ = fs::remove_dir_all(&self.log);
    }

    pub(crate) fn restore(&self, image: &Image) {
        self.clear();
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.log)
            .expect("a directory");
        for (name, bytes) in image {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(self.log.join(name))
                .expect("a file");
            file.write_all(bytes).expect("its bytes");
        }
    }
}

/// The segments as they are now.
pub(crate) fn image(directory: &Path) -> Image {
    let mut image = Image::new();
    for entry in fs::read_dir(directory).expect("the log") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.len() == 16 {
            image.insert(name, fs::read(path).expect("a segment"));
        }
    }
    image
}

/// All records that the log has, and what comes after them.
pub(crate) fn read(directory: &Path) -> (Vec<Vec<u8>>, RecvError) {
    let options = Options::default();
    let mut follower = Follower::open(directory, Start::Oldest, &options).expect("a follower");
    let (mut found, mut buffer) = (Vec::new(), Vec::new());
    loop {
        match follower.recv_vec(&mut buffer, Wait::Never) {
            Ok(()) => found.push(buffer.clone()),
            Err(end) => return (found, end),
        }
    }
}
