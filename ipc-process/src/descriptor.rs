use std::io;
use std::os::fd::OwnedFd;

use ipc_core::{Handoff, OpenError, Parts};

/// A bare descriptor, for the journey.
#[derive(Debug)]
pub(crate) struct Descriptor(pub(crate) OwnedFd);

impl Handoff for Descriptor {
    fn to_parts(&self) -> io::Result<Parts> {
        Ok(Parts {
            descriptors: vec![self.0.try_clone()?],
            data: Vec::new(),
        })
    }

    fn release(&self) {}

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let [descriptor] =
            <[OwnedFd; 1]>::try_from(parts.descriptors).map_err(|_| OpenError::Untrusted {
                what: "not one descriptor",
            })?;
        Ok(Self(descriptor))
    }
}

ipc_core::impl_serde_handoff!(Descriptor);
