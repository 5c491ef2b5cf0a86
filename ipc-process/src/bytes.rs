//! Arguments and results that are one run of bytes, which `serde` would carry byte by byte. On the
//! wire they look the same.

use std::any::Any;

use ipc_core::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes of a value that is nothing but bytes, alone or as the only argument.
pub(crate) fn as_run<T: 'static>(value: &T) -> Option<&[u8]> {
    let value: &dyn Any = value;
    let run = value.downcast_ref::<Vec<u8>>();
    run.or_else(|| value.downcast_ref().map(|(run,): &(Vec<u8>,)| run))
        .map(Vec::as_slice)
}

/// The bytes themselves of such a value; gives another back.
pub(crate) fn into_run<T: 'static>(value: T) -> Result<Vec<u8>, T> {
    let mut value = Some(value);
    let any: &mut dyn Any = &mut value;
    let run = if let Some(run) = any.downcast_mut::<Option<Vec<u8>>>() {
        run.take()
    } else if let Some(run) = any.downcast_mut::<Option<(Vec<u8>,)>>() {
        run.take().map(|(run,)| run)
    } else {
        None
    };
    match (run, value) {
        (Some(run), _) => Ok(run),
        (None, Some(value)) => Err(value),
        (None, None) => unreachable!("what was taken is a run"),
    }
}

/// Whether values of this type are nothing but bytes.
pub(crate) fn is_run<T: 'static>() -> bool {
    let none: Option<T> = None;
    let none: &dyn Any = &none;
    none.is::<Option<Vec<u8>>>() || none.is::<Option<(Vec<u8>,)>>()
}

/// The value of such a type that consists of these bytes.
pub(crate) fn from_run<T: 'static>(run: Vec<u8>) -> Option<T> {
    let mut value: Option<T> = None;
    let any: &mut dyn Any = &mut value;
    if let Some(value) = any.downcast_mut::<Option<Vec<u8>>>() {
        *value = Some(run);
    } else if let Some(value) = any.downcast_mut::<Option<(Vec<u8>,)>>() {
        *value = Some((run,));
    }
    value
}

/// As [`ipc_core::handoff::encode`].
pub(crate) fn encode<T: Serialize + 'static>(value: T) -> Result<Parts, String> {
    match into_run(value) {
        Ok(run) => to_message(run).map(|data| Parts {
            descriptors: Vec::new(),
            data,
        }),
        Err(value) => ipc_core::handoff::encode(&value).map_err(|error| error.to_string()),
    }
}

/// The encoding of a run of bytes, in the memory that it has.
pub(crate) fn to_message(mut run: Vec<u8>) -> Result<Vec<u8>, String> {
    let len = postcard::to_stdvec(&run.len()).map_err(|error| error.to_string())?;
    run.splice(0..0, len);
    Ok(run)
}

/// As [`ipc_core::handoff::decode`].
pub(crate) fn decode<T: DeserializeOwned + 'static>(parts: Parts) -> Result<T, String> {
    if !is_run::<T>() {
        return ipc_core::handoff::decode(parts).map_err(|error| error.to_string());
    }
    let mut run = parts.data;
    let (len, rest) =
        postcard::take_from_bytes::<usize>(&run).map_err(|error| error.to_string())?;
    if len > rest.len() {
        return Err("a run of bytes is cut short".to_owned());
    }
    let start = run.len() - rest.len();
    run.truncate(start + len);
    run.drain(..start);
    from_run(run).ok_or_else(|| "not a run of bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(data: &[u8]) -> Parts {
        Parts {
            descriptors: Vec::new(),
            data: data.to_vec(),
        }
    }

    #[test]
    fn runs_look_on_the_wire_as_serde_writes_them() {
        for len in [0, 1, 127, 128, 70_000] {
            let run = vec![7_u8; len];
            let plain = postcard::to_stdvec(&run).unwrap();
            assert_eq!(encode(run.clone()).unwrap().data, plain);
            assert_eq!(encode((run.clone(),)).unwrap().data, plain);
            assert_eq!(decode::<Vec<u8>>(parts(&plain)).unwrap(), run);
            assert_eq!(decode::<(Vec<u8>,)>(parts(&plain)).unwrap(), (run,));
        }
    }

    #[test]
    fn other_values_are_left_alone() {
        assert_eq!(as_run(&7_u8), None);
        assert_eq!(into_run("text".to_owned()), Err("text".to_owned()));
        assert!(!is_run::<Vec<i8>>() && !is_run::<(Vec<u8>, u8)>());
        let data = encode((1_u8, "x".to_owned())).unwrap();
        assert_eq!(decode::<(u8, String)>(data).unwrap(), (1, "x".to_owned()));
    }

    #[test]
    fn runs_that_are_cut_short_are_errors() {
        for bytes in [&[][..], &[3, 1, 2], &[0x80], &[0xff; 9]] {
            assert!(decode::<Vec<u8>>(parts(bytes)).is_err(), "{bytes:?}");
        }
    }
}
