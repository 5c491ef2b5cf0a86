//! How an end becomes descriptors and a few bytes, and an end again in another process.

#[cfg(feature = "serde")]
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use crate::OpenError;

/// What an end consists of outside a process: descriptors and a few bytes.
#[derive(Debug, Default)]
pub struct Parts {
    /// The descriptors, close-on-exec, in an order that the mechanism knows.
    pub descriptors: Vec<OwnedFd>,
    /// The mechanism's own record of options and of messages already read in.
    pub data: Vec<u8>,
}

/// An end that can move to another process.
///
/// Both forms are the same end: whoever goes on using the old one after [`release`](Self::release)
/// breaks the channel.
pub trait Handoff: Sized {
    /// The parts of this end, with duplicated descriptors.
    ///
    /// # Errors
    /// What `fcntl(2)` with `F_DUPFD_CLOEXEC` reports, such as EMFILE.
    fn to_parts(&self) -> io::Result<Parts>;

    /// Makes the drop of this copy a silent one: the peer is not told that the end was closed,
    /// because it lives on elsewhere.
    fn release(&self);

    /// Turns this end into parts, which another process turns back into an end.
    ///
    /// # Errors
    /// As [`to_parts`](Self::to_parts); the end is then closed.
    fn into_parts(self) -> io::Result<Parts> {
        let parts = self.to_parts()?;
        self.release();
        Ok(parts)
    }

    /// Takes an end over. Parts are input: descriptors and bytes are checked before use.
    ///
    /// # Errors
    /// `Untrusted` or `Incompatible` when they are not the parts of such an end, `Io`.
    fn from_parts(parts: Parts) -> Result<Self, OpenError>;
}

#[cfg(feature = "serde")]
thread_local! {
    /// The descriptors of the value that this thread is just encoding or decoding.
    static TABLE: RefCell<Option<Vec<Option<OwnedFd>>>> = const { RefCell::new(None) };
}

/// The time of one encoding or decoding. Also when that panics, its descriptors are closed and the
/// one around it goes on with its own.
#[cfg(feature = "serde")]
struct Table {
    outer: Option<Vec<Option<OwnedFd>>>,
}

#[cfg(feature = "serde")]
impl Table {
    fn begin(descriptors: Vec<Option<OwnedFd>>) -> Self {
        Self {
            outer: TABLE.replace(Some(descriptors)),
        }
    }

    fn end(self) -> Vec<Option<OwnedFd>> {
        TABLE.take().unwrap_or_default()
    }
}

#[cfg(feature = "serde")]
impl Drop for Table {
    fn drop(&mut self) {
        TABLE.set(self.outer.take());
    }
}

/// Why a value could not be encoded or decoded.
#[cfg(feature = "serde")]
#[derive(Debug)]
pub struct CodecError(Flaw);

#[cfg(feature = "serde")]
#[derive(Debug)]
enum Flaw {
    Codec(postcard::Error),
    Trailing { len: usize },
}

#[cfg(feature = "serde")]
impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Flaw::Codec(error) => write!(f, "the value does not fit its encoding: {error}"),
            Flaw::Trailing { len } => write!(
                f,
                "{len} B follow the encoding of the value; do both sides have the same type?"
            ),
        }
    }
}

#[cfg(feature = "serde")]
impl std::error::Error for CodecError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Flaw::Codec(error) => Some(error),
            Flaw::Trailing { .. } => None,
        }
    }
}

#[cfg(feature = "serde")]
impl From<postcard::Error> for CodecError {
    fn from(error: postcard::Error) -> Self {
        Self(Flaw::Codec(error))
    }
}

/// Runs `serialize`, which serialises values by any serialiser, and gives the descriptors of the
/// channel ends inside them. The ends leave the values: those are good for nothing but being
/// dropped.
#[cfg(feature = "serde")]
pub fn gather<T>(serialize: impl FnOnce() -> T) -> (T, Vec<OwnedFd>) {
    let table = Table::begin(Vec::new());
    let written = serialize();
    let descriptors = table.end();
    (written, descriptors.into_iter().flatten().collect())
}

/// Runs `deserialize`, which may take channel ends with these descriptors out of what it reads.
/// Descriptors that no end claimed are closed.
#[cfg(feature = "serde")]
pub fn scatter<T>(descriptors: Vec<OwnedFd>, deserialize: impl FnOnce() -> T) -> T {
    let _table = Table::begin(descriptors.into_iter().map(Some).collect());
    deserialize()
}

/// Encodes a value with the channel ends inside it, by `postcard`. The ends leave the value: it
/// is good for nothing but being dropped.
///
/// # Errors
/// When `serde` or the descriptors refuse; the ends that were reached are then lost, which their
/// peers see as a death.
#[cfg(feature = "serde")]
pub fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Result<Parts, CodecError> {
    // Room for a small value, so that it is allocated once.
    let room = Vec::with_capacity(64);
    let (data, descriptors) = gather(|| postcard::to_extend(value, room));
    Ok(Parts {
        descriptors,
        data: data?,
    })
}

/// Decodes what [`encode`] made. The bytes are input: any bytes give a value or an error.
///
/// # Errors
/// When they are not such a value, or more than one. Descriptors that no end claimed are closed.
#[cfg(feature = "serde")]
pub fn decode<T: serde::de::DeserializeOwned>(parts: Parts) -> Result<T, CodecError> {
    match scatter(parts.descriptors, || postcard::take_from_bytes(&parts.data))? {
        (value, []) => Ok(value),
        (_, rest) => Err(CodecError(Flaw::Trailing { len: rest.len() })),
    }
}

/// A channel end as a `serde` value, for code that is generic over mechanisms. With the `serde`
/// feature of a mechanism crate its ends are such values themselves.
#[cfg(feature = "serde")]
#[derive(Debug)]
pub struct End<E>(E);

#[cfg(feature = "serde")]
impl<E> End<E> {
    /// Wraps an end for the journey.
    pub fn new(end: E) -> Self {
        Self(end)
    }

    /// The end, after the journey.
    pub fn into_inner(self) -> E {
        self.0
    }
}

#[cfg(feature = "serde")]
impl<E: Handoff> serde::Serialize for End<E> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de, E: Handoff> serde::Deserialize<'de> for End<E> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

/// Moves an end into the value that is being [encoded](encode).
///
/// # Errors
/// Outside `encode`, where there is nowhere to put the descriptors, or when duplicating them
/// fails.
#[cfg(feature = "serde")]
pub fn serialize<E: Handoff, S: serde::Serializer>(
    end: &E,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    use serde::ser::Error;
    let parts = end.to_parts().map_err(S::Error::custom)?;
    let first = TABLE.with_borrow_mut(|table| {
        let table = table.as_mut().ok_or_else(|| {
            S::Error::custom("a channel end travels only as an argument or result of a process")
        })?;
        let first = table.len();
        table.extend(parts.descriptors.into_iter().map(Some));
        Ok(first..table.len())
    })?;
    end.release();
    serde::Serialize::serialize(&(first.start, first.len(), parts.data), serializer)
}

/// Takes an end out of the value that is being [decoded](decode).
///
/// # Errors
/// When the value does not hold such an end.
#[cfg(feature = "serde")]
pub fn deserialize<'de, E: Handoff, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<E, D::Error> {
    use serde::de::Error;
    let (first, count, data): (usize, usize, Vec<u8>) =
        serde::Deserialize::deserialize(deserializer)?;
    let descriptors = TABLE.with_borrow_mut(|table| {
        let slots = first
            .checked_add(count)
            .and_then(|end| table.as_mut()?.get_mut(first..end))
            .ok_or_else(|| D::Error::custom("a channel end names descriptors that did not come"))?;
        slots
            .iter_mut()
            .map(|slot| {
                slot.take()
                    .ok_or_else(|| D::Error::custom("a descriptor came twice"))
            })
            .collect::<Result<Vec<_>, _>>()
    })?;
    E::from_parts(Parts { descriptors, data }).map_err(D::Error::custom)
}

/// Makes ends `serde` values, so that they travel as arguments and results of processes.
#[cfg(feature = "serde")]
#[macro_export]
macro_rules! impl_serde_handoff {
    ($($end:ty),+ $(,)?) => {$(
        impl $crate::handoff::serde::Serialize for $end {
            fn serialize<S: $crate::handoff::serde::Serializer>(
                &self,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                $crate::handoff::serialize(self, serializer)
            }
        }

        impl<'de> $crate::handoff::serde::Deserialize<'de> for $end {
            fn deserialize<D: $crate::handoff::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $crate::handoff::deserialize(deserializer)
            }
        }
    )+};
}

#[cfg(feature = "serde")]
#[doc(hidden)]
pub use serde;
