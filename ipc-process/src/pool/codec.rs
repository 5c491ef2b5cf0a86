//! Arguments to bytes, with a limit that is checked while they are written and not afterwards.

use std::fmt;

use postcard::ser_flavors::Flavor;
use serde::{Serialize, Serializer};

use super::TaskError;
use crate::bytes;

/// The most that one message carries, encoded: 1 GiB.
pub(super) const MAX_MESSAGE: usize = 1 << 30;

/// Appends to a vector up to [`MAX_MESSAGE`].
struct Bounded<'a>(&'a mut Vec<u8>);

impl Flavor for Bounded<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.0.len() >= MAX_MESSAGE {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if bytes.len() > MAX_MESSAGE - self.0.len() {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a value; on an error, what was there before remains.
pub(super) fn append<T>(out: &mut Vec<u8>, value: &T) -> Result<(), postcard::Error>
where
    T: Serialize + 'static,
{
    let before = out.len();
    let written = match bytes::as_run(value) {
        Some(run) => postcard::serialize_with_flavor(&Bytes(run), Bounded(out)),
        None => postcard::serialize_with_flavor(value, Bounded(out)),
    };
    if written.is_err() {
        out.truncate(before);
    }
    written
}

/// A run of bytes as the only argument.
pub(super) fn run(run: Vec<u8>) -> Result<Vec<u8>, TaskError> {
    if run.len() > MAX_MESSAGE {
        return Err(TaskError::TooLarge { max: MAX_MESSAGE });
    }
    bytes::to_message(run).map_err(|reason| TaskError::Encode { reason })
}

pub(super) fn argument_error(error: &postcard::Error) -> TaskError {
    match error {
        postcard::Error::SerializeBufferFull => TaskError::TooLarge { max: MAX_MESSAGE },
        error => TaskError::Encode {
            reason: format!("the arguments: {error}"),
        },
    }
}

/// A slice as one run of bytes, not as a sequence of numbers.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
