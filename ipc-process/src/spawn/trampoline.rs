//! One pointer that carries the types of a function, its arguments and its result, so that the
//! pointer and the types cannot disagree.
#![expect(
    unsafe_code,
    reason = "a function is found again by its place in the image"
)]

use std::sync::OnceLock;

use ipc_core::Parts;
use serde::de::DeserializeOwned;

use super::image::Image;
use crate::{Target, bytes};

/// How a call of a trampoline ends when it does not panic.
pub(crate) enum Called {
    Returned(Parts),
    BadArguments(String),
    BadResult(String),
}

pub(crate) type Trampoline = fn(Parts) -> Called;

/// Decodes the arguments, calls the function `F`, encodes its result.
fn trampoline<F: Target<A>, A: DeserializeOwned + 'static>(arguments: Parts) -> Called {
    let arguments = match bytes::decode::<A>(arguments) {
        Ok(arguments) => arguments,
        Err(reason) => return Called::BadArguments(reason),
    };
    let result = conjure::<F>().call(arguments);
    match bytes::encode(result) {
        Ok(parts) => Called::Returned(parts),
        Err(reason) => Called::BadResult(reason),
    }
}

/// The value of a type that has no content.
fn conjure<F: Copy>() -> F {
    const {
        assert!(
            size_of::<F>() == 0,
            "a process function must not capture anything"
        );
    }
    // SAFETY: `F` has no bytes to initialise, and is inhabited and free to duplicate: `place_of`
    // was given a value of it, and it is Copy.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(Image::of_main_program)
}

/// Where the trampoline of this function lies in the main program; `None` if it lies elsewhere.
pub(crate) fn place_of<F: Target<A>, A: DeserializeOwned + 'static>(_: F) -> Option<u64> {
    const {
        assert!(
            size_of::<F>() == 0,
            "a process function must not capture anything"
        );
    }
    image().offset_of(trampoline::<F, A> as Trampoline as usize)
}

/// The trampoline at a place that [`place_of`] gave in a process with the same image.
pub(crate) fn at_place(offset: u64) -> Option<Trampoline> {
    let address = image().address_of(offset)?;
    // SAFETY: the place came over the private socket from the process that started this one by
    // executing its own image, which the caller has compared; there it was the place of a
    // function of exactly this type. It lies in this image's code, as just seen.
    Some(unsafe { std::mem::transmute::<usize, Trampoline>(address) })
}
