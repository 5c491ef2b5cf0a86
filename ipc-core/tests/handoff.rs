//! Descriptors inside values that are encoded.
#![cfg(feature = "serde")]

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ipc_core::handoff::{End, decode, encode, gather, scatter};
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Handoff, OpenError, Parts, Wait};

/// An end that is one descriptor.
struct Descriptor(OwnedFd);

impl Handoff for Descriptor {
    fn to_parts(&self) -> io::Result<Parts> {
        Ok(Parts {
            descriptors: vec![self.0.try_clone()?],
            data: Vec::new(),
        })
    }

    fn release(&self) {}

    fn from_parts(mut parts: Parts) -> Result<Self, OpenError> {
        let descriptor = parts.descriptors.pop().ok_or(OpenError::NotFound)?;
        Ok(Self(descriptor))
    }
}

fn has_no_writer(reader: &io::PipeReader) -> bool {
    poll([(reader.as_fd(), Interest::HangUp)], Wait::Never) == Ok(Polled::Ready)
}

#[test]
fn an_encoding_that_panics_keeps_no_descriptor() {
    let (reader, writer) = io::pipe().unwrap();
    let end = End::new(Descriptor(writer.into()));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        gather(|| {
            postcard::to_stdvec(&end).unwrap();
            panic!("in the midst of it");
        })
    }));
    assert!(panicked.is_err());
    drop(end);
    assert!(has_no_writer(&reader), "what was gathered is open");
    // And a value outside of an encoding is refused again.
    let (_, writer) = io::pipe().unwrap();
    assert!(postcard::to_stdvec(&End::new(Descriptor(writer.into()))).is_err());
}

#[test]
fn a_decoding_that_panics_keeps_no_descriptor() {
    let (reader, writer) = io::pipe().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        scatter(vec![writer.into()], || panic!("in the midst of it"))
    }));
    assert!(panicked.is_err());
    assert!(has_no_writer(&reader), "what was not taken is open");
}

#[test]
fn bytes_behind_a_value_are_refused_and_its_descriptors_closed() {
    let (reader, writer) = io::pipe().unwrap();
    let mut parts = encode(&(End::new(Descriptor(writer.into())), 7u8)).unwrap();
    parts.data.push(0);
    let refused = decode::<(End<Descriptor>, u8)>(parts);
    let Err(refused) = refused else {
        panic!("a byte too much")
    };
    assert!(refused.to_string().starts_with("1 B follow"), "{refused}");
    assert!(has_no_writer(&reader));
}
