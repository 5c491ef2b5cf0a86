use ipc_core::Parts;

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};

/// Both ends of one process in one bundle: how many descriptors and bytes are the sender's, then
/// everything.
pub(crate) fn pack(sender: Parts, receiver: Parts) -> Bundle {
    let counts = [sender.descriptors.len(), sender.data.len()];
    let mut data = Vec::new();
    for count in counts {
        data.extend_from_slice(&(count as u64).to_ne_bytes());
    }
    data.extend_from_slice(&sender.data);
    data.extend_from_slice(&receiver.data);
    let mut descriptors = sender.descriptors;
    descriptors.extend(receiver.descriptors);
    Bundle { descriptors, data }
}

pub(crate) fn unpack(bundle: Bundle) -> Outcome<[Parts; 2]> {
    let lost = || Failure::Failed("the ends were lost on the way".into());
    let Bundle {
        mut descriptors,
        data,
    } = bundle;
    let (fds, data) = data.split_first_chunk::<8>().ok_or_else(lost)?;
    let (len, data) = data.split_first_chunk::<8>().ok_or_else(lost)?;
    let fds = usize::try_from(u64::from_ne_bytes(*fds))?;
    let len = usize::try_from(u64::from_ne_bytes(*len))?;
    if fds > descriptors.len() || len > data.len() {
        return Err(lost());
    }
    let (sender, receiver) = data.split_at(len);
    let rest = descriptors.split_off(fds);
    Ok([
        Parts {
            descriptors,
            data: sender.into(),
        },
        Parts {
            descriptors: rest,
            data: receiver.into(),
        },
    ])
}
