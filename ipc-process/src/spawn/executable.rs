use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::OnceLock;

use crate::proc;

/// Leads to the image of whoever looks.
const LINK: &str = "/proc/self/exe";

/// The file that this program is an image of.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) path: CString,
    /// What two processes that exchange places in the image must have in common: protocol and
    /// file.
    pub(crate) identity: Vec<u8>,
    /// By an interpreter of machine code, tens of times slower.
    pub(crate) is_interpreted: bool,
}

/// As found at the first call; the file may be replaced or removed later.
pub(crate) fn executable() -> io::Result<&'static Executable> {
    static EXECUTABLE: OnceLock<Executable> = OnceLock::new();
    if let Some(known) = EXECUTABLE.get() {
        return Ok(known);
    }
    let found = find()?;
    Ok(EXECUTABLE.get_or_init(|| found))
}

fn find() -> io::Result<Executable> {
    // What it leads to stays the image also when the file's name leads elsewhere, or nowhere.
    let link = Path::new(LINK);
    let named = |error| proc::error(LINK, &error);
    let by_link = fs::metadata(link).map_err(named)?;
    let name = fs::read_link(link).map_err(named)?;
    let same = |other: &fs::Metadata| (other.dev(), other.ino()) == (by_link.dev(), by_link.ino());
    let (path, file, is_interpreted) = match fs::metadata(&name) {
        // An interpreter of machine code (valgrind) executes us and is behind the link, but shows
        // our name there. A file that was replaced would be called "(deleted)".
        Ok(by_name) if !same(&by_name) => (name, by_name, true),
        _ => (link.to_owned(), by_link, false),
    };
    Ok(Executable {
        path: CString::new(path.into_os_string().into_vec()).map_err(io::Error::other)?,
        identity: format!(
            "ipc-process {} {} {}",
            env!("CARGO_PKG_VERSION"),
            file.dev(),
            file.ino()
        )
        .into_bytes(),
        is_interpreted,
    })
}
