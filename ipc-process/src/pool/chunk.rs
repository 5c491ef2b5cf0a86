//! Many calls of one function in one message.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::codec::{self, Bytes};
use crate::{RemotePanic, Target, bytes, panic};

/// The function that a worker runs for a chunk: `F` for each of the items.
pub(super) struct Mapped<F, T> {
    function: F,
    items: PhantomData<fn(T)>,
}

impl<F, T> Mapped<F, T> {
    pub(super) fn new(function: F) -> Self {
        Self {
            function,
            items: PhantomData,
        }
    }
}

impl<F: Copy, T> Clone for Mapped<F, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Copy, T> Copy for Mapped<F, T> {}

impl<F, T> Target<(Items<T>,)> for Mapped<F, T>
where
    F: Target<T>,
    T: DeserializeOwned + 'static,
{
    type Output = Results<F::Output>;

    fn call(self, (items,): (Items<T>,)) -> Results<F::Output> {
        let mut results = Results {
            values: Vec::with_capacity(items.0.len()),
            failures: Vec::new(),
            broken_off: None,
        };
        let mut items = items.0.into_iter().enumerate();
        // One guard for a run of calls that return, and a new one after each that panics.
        loop {
            let mut running = 0;
            let all = catch_unwind(AssertUnwindSafe(|| {
                for (index, item) in items.by_ref() {
                    running = index;
                    results.values.push(self.function.call(item));
                }
            }));
            match all {
                Ok(()) => return results,
                Err(payload) => {
                    let failure = Failure::Panicked(Box::new(panic::of_payload(payload)));
                    results.failures.push((running, failure));
                }
            }
        }
    }
}

/// The arguments of a chunk.
pub(super) struct Items<T>(Vec<T>);

/// Room for a small chunk, so that it is allocated once.
const SMALL: usize = 64;

/// How many items come first, in bytes that [`Chunk`] can fill in at the end.
type Count = [u8; 4];

impl<'de, T: DeserializeOwned + 'static> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemsVisitor<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned + 'static> Visitor<'de> for ItemsVisitor<T> {
            type Value = Items<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the items of a chunk")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Items<T>, A::Error> {
                use serde::de::Error;
                let short = || A::Error::custom("a chunk is cut short");
                let count: Count = items.next_element()?.ok_or_else(short)?;
                let mut next = || -> Result<T, A::Error> {
                    if bytes::is_run::<T>() {
                        let run = items.next_element::<&[u8]>()?.ok_or_else(short)?;
                        return bytes::from_run(run.to_vec()).ok_or_else(short);
                    }
                    items.next_element()?.ok_or_else(short)
                };
                let count = u32::from_le_bytes(count);
                (0..count)
                    .map(|_| next())
                    .collect::<Result<_, _>>()
                    .map(Items)
            }
        }

        deserializer.deserialize_tuple(usize::MAX, ItemsVisitor(PhantomData))
    }
}

/// The arguments of a chunk as they are written.
#[derive(Debug)]
pub(super) struct Chunk {
    /// [`Count`], then the items.
    bytes: Vec<u8>,
    count: u32,
    /// Where each item ends, if the chunk may have to be taken apart.
    ends: Option<Vec<usize>>,
}

impl Chunk {
    pub(super) fn new(divisible: bool) -> Self {
        let mut bytes = Vec::with_capacity(SMALL);
        bytes.extend_from_slice(&Count::default());
        Self {
            bytes,
            count: 0,
            ends: divisible.then(Vec::new),
        }
    }

    pub(super) fn push<T: Serialize + 'static>(&mut self, item: &T) -> Result<(), postcard::Error> {
        codec::append(&mut self.bytes, item)?;
        self.count += 1;
        if let Some(ends) = &mut self.ends {
            ends.push(self.bytes.len());
        }
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The message, and the ends of its items.
    pub(super) fn finish(mut self) -> (Vec<u8>, Option<Vec<usize>>) {
        if let Some(count) = self.bytes.first_chunk_mut() {
            *count = self.count.to_le_bytes();
        }
        (self.bytes, self.ends)
    }
}

/// Takes a chunk apart into chunks of one item each.
pub(super) fn singles(bytes: &[u8], ends: &[usize]) -> Vec<Vec<u8>> {
    let mut start = size_of::<Count>();
    ends.iter()
        .map(|&end| {
            let mut single = 1_u32.to_le_bytes().to_vec();
            single.extend_from_slice(bytes.get(start..end).unwrap_or_default());
            start = end;
            single
        })
        .collect()
}

/// Reads one value off the front.
fn take<T: DeserializeOwned + 'static>(bytes: &[u8]) -> postcard::Result<(T, &[u8])> {
    if bytes::is_run::<T>() {
        let (run, rest) = postcard::take_from_bytes::<&[u8]>(bytes)?;
        let value = bytes::from_run(run.to_vec());
        return Ok((value.ok_or(postcard::Error::SerdeDeCustom)?, rest));
    }
    postcard::take_from_bytes(bytes)
}

/// Why one of the items has no result.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    Panicked(Box<RemotePanic>),
    Encode(String),
}

/// What the calls of a chunk returned, in order. Each result is written for itself, so that one
/// that cannot be written leaves the others alone.
#[derive(Debug)]
pub(super) struct Results<R> {
    /// The results of the items that have one.
    pub(super) values: Vec<R>,
    /// The other items by their index in the chunk, ascending.
    pub(super) failures: Vec<(usize, Failure)>,
    /// As read: why there are no more values.
    pub(super) broken_off: Option<String>,
}

impl<R: Serialize + 'static> Serialize for Results<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(SMALL);
        let mut failed = Vec::new();
        let mut before = self.failures.iter().map(|(index, _)| *index).peekable();
        let mut index = 0;
        for value in &self.values {
            while before.next_if_eq(&index).is_some() {
                index += 1;
            }
            if let Err(error) = codec::append(&mut bytes, value) {
                failed.push((index, Failure::Encode(error.to_string())));
            }
            index += 1;
        }
        let mut failures: Vec<&(usize, Failure)> = self.failures.iter().chain(&failed).collect();
        failures.sort_by_key(|(index, _)| *index);

        let mut tuple = serializer.serialize_tuple(3)?;
        let count = u32::try_from(self.values.len() - failed.len()).unwrap_or(u32::MAX);
        tuple.serialize_element(&count)?;
        tuple.serialize_element(&Bytes(&bytes))?;
        tuple.serialize_element(&failures)?;
        tuple.end()
    }
}

impl<'de, R: DeserializeOwned + 'static> Deserialize<'de> for Results<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Raw<R>(PhantomData<R>);

        impl<'de, R: DeserializeOwned + 'static> Visitor<'de> for Raw<R> {
            type Value = Results<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the results of a chunk")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut tuple: A) -> Result<Results<R>, A::Error> {
                use serde::de::Error;
                let short = || A::Error::custom("results are cut short");
                let count = tuple.next_element::<u32>()?.ok_or_else(short)?;
                let mut bytes = tuple.next_element::<&[u8]>()?.ok_or_else(short)?;
                let failures = tuple.next_element()?.ok_or_else(short)?;
                // A count is input: a result takes a byte or more, or no memory at all.
                let mut values = Vec::with_capacity(bytes.len().min(count as usize));
                let mut broken_off = None;
                for _ in 0..count {
                    match take(bytes) {
                        Ok((value, rest)) => {
                            values.push(value);
                            bytes = rest;
                        }
                        Err(error) => {
                            broken_off = Some(error.to_string());
                            break;
                        }
                    }
                }
                Ok(Results {
                    values,
                    failures,
                    broken_off,
                })
            }
        }

        deserializer.deserialize_tuple(3, Raw(PhantomData))
    }
}
