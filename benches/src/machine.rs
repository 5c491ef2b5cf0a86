use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::clock;
use crate::placement;

/// What the figures depend on; no host name, user or address.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: Option<String>,
    pub(crate) processors_online: Option<String>,
    /// The processors of pinned rows: initiator, then responder.
    pub(crate) pinned_to: &'static [usize],
    pub(crate) siblings: Vec<Option<String>>,
    pub(crate) caches: Vec<String>,
    pub(crate) governor: Option<String>,
    pub(crate) hypervisor: bool,
    pub(crate) memory_kib: Option<u64>,
    pub(crate) kernel: String,
    pub(crate) architecture: &'static str,
    pub(crate) mitigations: Vec<String>,
    pub(crate) clock_source: Option<String>,
    /// Cost of one clock reading, taken off each sample.
    pub(crate) clock_reading_ns: u64,
    pub(crate) load_1_min: Option<f64>,
    pub(crate) storage_of_reports: Option<String>,
    pub(crate) rustc: &'static str,
    pub(crate) version: &'static str,
    pub(crate) commit: Option<String>,
    pub(crate) limits: Vec<Setting>,
}

/// A kernel limit and its value.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Machine {
    pub(crate) fn here(reports: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let pinned_to = placement::processors();
        let uname = rustix::system::uname();
        let kernel = [uname.sysname(), uname.release(), uname.version()];
        Self {
            cpu: field("model name"),
            processors_online: read("/sys/devices/system/cpu/online"),
            siblings: pinned_to
                .iter()
                .map(|&cpu| placement::siblings(cpu))
                .collect(),
            pinned_to,
            caches: caches(),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            hypervisor: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_kib: memory_kib(),
            kernel: kernel.map(|part| part.to_string_lossy()).join(" "),
            architecture: env::consts::ARCH,
            mitigations: mitigations(),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            clock_reading_ns: clock::reading_cost_ns(),
            load_1_min: read("/proc/loadavg").and_then(|l| l.split(' ').next()?.parse().ok()),
            storage_of_reports: file_system(reports),
            rustc: env!("IPC_BENCH_RUSTC"),
            version: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            limits: limits(),
        }
    }
}

impl Machine {
    /// In one line what a figure cannot do without.
    pub(crate) fn summary(&self) -> String {
        let release = self.kernel.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let guest = if self.hypervisor {
            ", virtual machine"
        } else {
            ""
        };
        let rustc = self.rustc.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let cpu = self.cpu.as_deref().unwrap_or("unknown processor");
        format!("{cpu}{guest} · {release} · {rustc}")
    }
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn caches() -> Vec<String> {
    (0..8)
        .map_while(|index| {
            let of = |what| {
                read(&format!(
                    "/sys/devices/system/cpu/cpu0/cache/index{index}/{what}"
                ))
            };
            Some(format!("L{} {} {}", of("level")?, of("type")?, of("size")?))
        })
        .collect()
}

fn memory_kib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// What the kernel does about the processor's faults, which is paid at every system call.
fn mitigations() -> Vec<String> {
    let Ok(directory) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return Vec::new();
    };
    let mut all: Vec<_> = directory
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let state = fs::read_to_string(&path).ok()?;
            let name = path.file_name()?.to_str()?.to_owned();
            state
                .contains("Mitigation")
                .then(|| format!("{name}: {}", state.trim()))
        })
        .collect();
    all.sort();
    all
}

/// The type of the file system that the path lies on, by the longest mount point above it.
fn file_system(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let point = fields.next()?;
            path.starts_with(point)
                .then_some((point.len(), fields.next()?))
        })
        .max_by_key(|(len, _)| *len)
        .map(|(_, kind)| kind.to_owned())
}

/// The commit of the checkout, read without running git; absent in a packaged source.
fn commit() -> Option<String> {
    let dot_git = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.git");
    // In a linked worktree it is a file that names the directory (gitrepository-layout(5)).
    let linked = fs::read_to_string(&dot_git).ok();
    let linked = linked.and_then(|text| Some(text.strip_prefix("gitdir: ")?.trim().to_owned()));
    let git = linked.map_or(dot_git, PathBuf::from);
    let common = fs::read_to_string(git.join("commondir")).unwrap_or_default();
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    match head.trim().strip_prefix("ref: ") {
        Some(branch) => {
            let branch = git.join(common.trim()).join(branch);
            Some(fs::read_to_string(branch).ok()?.trim().to_owned())
        }
        None => Some(head.trim().to_owned()),
    }
}

fn limits() -> Vec<Setting> {
    const KERNEL: &[&str] = &[
        "fs/pipe-max-size",
        "fs/pipe-user-pages-soft",
        "fs/mqueue/msg_max",
        "fs/mqueue/msgsize_max",
        "fs/mqueue/queues_max",
        "net/core/wmem_default",
        "net/core/rmem_default",
        "net/unix/max_dgram_qlen",
        "kernel/shmmax",
    ];
    const PROCESS: &[&str] = &[
        "Max open files",
        "Max pending signals",
        "Max msgqueue size",
        "Max file size",
    ];
    let kernel = KERNEL.iter().filter_map(|name| {
        let value = read(&format!("/proc/sys/{name}"))?;
        Some(Setting {
            name: name.replace('/', "."),
            value,
        })
    });
    let table = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let process = PROCESS.iter().filter_map(|name| {
        let line = table.lines().find(|line| line.starts_with(name))?;
        let value = line[name.len()..].split_whitespace().next()?.to_owned();
        Some(Setting {
            name: (*name).to_owned(),
            value,
        })
    });
    let shm = rustix::fs::statvfs("/dev/shm").ok().map(|fs| Setting {
        name: "/dev/shm bytes".into(),
        value: (fs.f_blocks * fs.f_frsize).to_string(),
    });
    kernel.chain(process).chain(shm).collect()
}
