//! The rows of `ipc-process`.

use std::fmt;

use ipc_process::{Pool, Process, StartMethod};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure::Outcome;
use crate::processes::starts::Starter;
use crate::processes::tasks::{Tasks, WORKERS, task};

/// `Process::start` and `join` of a function that does nothing: by this program, executed anew, or
/// with `ZYGOTE` by a fork of a process that waits for that.
#[derive(Debug)]
pub(crate) struct Own<const ZYGOTE: bool>;

fn nothing() {}

impl<const ZYGOTE: bool> Starter for Own<ZYGOTE> {
    fn new() -> Outcome<Self> {
        let mut own = Self;
        // The first start makes the zygote.
        own.start_and_join()?;
        Ok(own)
    }

    fn start_and_join(&mut self) -> Outcome<()> {
        let method = if ZYGOTE {
            StartMethod::Zygote
        } else {
            StartMethod::Spawn
        };
        let process = Process::new(nothing, ()).start_method(method);
        Ok(process.start()?.join()?)
    }
}

/// `Pool::apply` and `Pool::starmap`, which chooses how many tasks go into a message or, with
/// `SINGLY`, puts one into each. Each task gets an argument of its own, copied while the clock runs.
#[derive(Debug)]
pub(crate) struct OwnPool<const SINGLY: bool>(Pool);

impl<const SINGLY: bool> Tasks for OwnPool<SINGLY> {
    fn new() -> Outcome<Self> {
        Ok(Self(Pool::new(WORKERS)?))
    }

    fn one(&mut self, argument: &[u8], task_ns: u64) -> Outcome<usize> {
        Ok(self.0.apply(run, (Bytes(argument.to_vec()), task_ns))?)
    }

    fn all(&mut self, tasks: usize, argument: &[u8], task_ns: u64) -> Outcome<usize> {
        let batch = if SINGLY {
            self.0.batch().chunk_size(1)
        } else {
            self.0.batch()
        };
        let arguments = (0..tasks).map(|_| (Bytes(argument.to_vec()), task_ns));
        Ok(batch.starmap(run, arguments)?.into_iter().sum())
    }
}

fn run(Bytes(argument): Bytes, task_ns: u64) -> usize {
    task(&argument, task_ns)
}

/// Bytes beside another argument, which `serde` carries as one run and not one by one, as
/// `serde_bytes::ByteBuf` is.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Run;

        impl Visitor<'_> for Run {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Run)
    }
}
