//! Which names are taken, and in which company.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ipc_core::{Name, OpenError, Wait};
use rustix::fs::FileType;

use common::Folder;

#[test]
fn names_are_words_or_absolute_paths() {
    let long = "x".repeat(65);
    for bad in [
        "", "a/b", "../x", ".hidden", "a b", "/", "/dir/", "nul\0", &long,
    ] {
        assert!(
            matches!(bad.parse::<Name>(), Err(OpenError::Invalid { .. })),
            "{bad:?}"
        );
    }
    for good in ["prices", "a.b-c_9", "/run/x"] {
        assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    for mode in [0o777, 0o1777, 0o720] {
        let folder = Folder::new(&format!("{mode:o}"), mode);
        assert!(
            matches!(folder.name("x").path(), Err(OpenError::Untrusted { .. })),
            "{mode:o}"
        );
    }
    let folder = Folder::new("own", 0o700);
    assert_eq!(folder.name("x").path().unwrap(), folder.0.join("x"));
}

#[test]
fn a_missing_directory_is_nobody_listening() {
    let name: Name = "/nonexistent-directory/x".parse().unwrap();
    assert!(matches!(name.path(), Err(OpenError::NotFound)));
}

#[test]
fn links_other_types_and_open_modes_are_refused() {
    let folder = Folder::new("squat", 0o700);
    fs::write(folder.0.join("file"), "").unwrap();
    std::os::unix::fs::symlink("file", folder.0.join("link")).unwrap();
    let refused = |word: &str, expected| {
        matches!(
            folder
                .name(word)
                .lock(Wait::Forever)
                .unwrap()
                .holds(expected),
            Err(OpenError::Untrusted { .. })
        )
    };
    assert!(refused("file", FileType::Socket));
    assert!(refused("link", FileType::RegularFile));
    fs::set_permissions(folder.0.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused("file", FileType::RegularFile));
    fs::set_permissions(folder.0.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!refused("file", FileType::RegularFile));
    fs::hard_link(folder.0.join("file"), folder.0.join("second")).unwrap();
    assert!(
        refused("file", FileType::RegularFile),
        "a second link is somebody's hold on it"
    );
}

#[test]
fn the_lock_keeps_others_out_until_it_is_dropped() {
    let folder = Folder::new("lock", 0o700);
    let held = folder.name("a").lock(Wait::Forever).unwrap();
    for wait in [Wait::Never, Wait::Forever] {
        assert!(matches!(
            folder.name("b").lock(wait),
            Err(OpenError::TimedOut)
        ));
    }
    drop(held);
    assert!(folder.name("b").lock(Wait::Forever).is_ok());
}

/// In a process of its own, since it changes the environment.
#[test]
fn a_runtime_directory_of_another_user_is_left_alone() {
    const AS_CHILD: &str = "IPC_CORE_TEST_OWN_DIRECTORY";
    if std::env::var_os(AS_CHILD).is_some() {
        let foreign = std::env::var("XDG_RUNTIME_DIR").unwrap();
        let path = "word".parse::<Name>().unwrap().path().unwrap();
        assert!(!path.starts_with(&foreign), "{path:?}");
        return;
    }
    // Root gives a directory of its own away; anybody else finds that of root.
    let folder = Folder::new("foreign", 0o777);
    let given = rustix::process::geteuid().is_root()
        && std::os::unix::fs::chown(&folder.0, Some(65534), None).is_ok();
    let foreign = if given {
        folder.0.clone()
    } else {
        PathBuf::from("/usr")
    };
    let test = "a_runtime_directory_of_another_user_is_left_alone";
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env(AS_CHILD, "1")
        .env("XDG_RUNTIME_DIR", &foreign)
        .status();
    assert!(status.unwrap().success());
    assert!(!foreign.join("ipc").exists());
}
