//! One message inside the `siginfo_t` of a queued signal.
//!
//! ```text
//! offset  field      what travels
//!      0  si_signo   the number of the channel
//!      4  si_errno   length of the message, 0 to 8
//!      8  si_code    SI_QUEUE
//!     16  si_pid     the sender, for people who trace; believed by nobody
//!     20  si_uid     likewise
//!     24  si_value   the message, padded with zeros
//!     32  (unnamed)  the channel's nonce
//! ```
//!
//! Since Linux 4.20 the kernel keeps the first 48 bytes of what the sender passed and clears the
//! rest (`struct kernel_siginfo`); `tests/kernel.rs` proves it. The nonce stands neither in
//! `si_pid` nor in `si_uid`, which the kernel rewrites between namespaces.

use std::mem::offset_of;

/// Longest message in bytes: what a `union sigval` holds.
pub(crate) const MAX_MESSAGE: usize = 8;

/// A `siginfo_t` of a 64-bit machine, as `rt_sigqueueinfo(2)` takes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Siginfo {
    pub(crate) signo: i32,
    pub(crate) errno: i32,
    pub(crate) code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: [u8; MAX_MESSAGE],
    nonce: u64,
    rest: [u64; 11],
}

impl Siginfo {
    /// A queued signal of a channel, without a message.
    pub(crate) fn new(signo: i32, nonce: u64, pid: i32, uid: u32) -> Self {
        Self {
            signo,
            code: libc::SI_QUEUE,
            pid,
            uid,
            nonce,
            ..Self::default()
        }
    }

    #[inline]
    pub(crate) fn put(&mut self, word: Word) {
        self.errno = word.len.into();
        self.value = word.bytes;
    }
}

const _: () = {
    assert!(size_of::<Siginfo>() == size_of::<libc::siginfo_t>());
    assert!(align_of::<Siginfo>() == align_of::<libc::siginfo_t>());
    assert!(offset_of!(Siginfo, signo) == offset_of!(libc::siginfo_t, si_signo));
    assert!(offset_of!(Siginfo, errno) == offset_of!(libc::siginfo_t, si_errno));
    assert!(offset_of!(Siginfo, code) == offset_of!(libc::siginfo_t, si_code));
    assert!(offset_of!(Siginfo, value) == 24 && offset_of!(Siginfo, nonce) == 32);
};

/// A message of at most eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    len: u8,
    bytes: [u8; MAX_MESSAGE],
}

impl Word {
    /// `None` if it is too long.
    #[inline]
    pub(crate) fn new(message: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_MESSAGE];
        match message.first_chunk() {
            Some(whole) if message.len() == MAX_MESSAGE => bytes = *whole,
            _ => bytes.get_mut(..message.len())?.copy_from_slice(message),
        }
        Some(Self {
            len: u8::try_from(message.len()).ok()?,
            bytes,
        })
    }

    /// Its length, or `None` if the buffer is too small for it.
    #[inline]
    pub(crate) fn copy_to(&self, buffer: &mut [u8]) -> Option<usize> {
        match buffer.first_chunk_mut() {
            Some(whole) if usize::from(self.len) == MAX_MESSAGE => *whole = self.bytes,
            _ => buffer
                .get_mut(..usize::from(self.len))?
                .copy_from_slice(self.as_bytes()),
        }
        Some(self.len.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The message, unless the signal is noise: any process of this user may send any signal, and
    /// at the limit of the queue `kill(2)` "succeeds" with an empty siginfo.
    #[inline]
    pub(crate) fn from_siginfo(info: &Siginfo, nonce: u64) -> Option<Self> {
        let len = u8::try_from(info.errno).ok()?;
        let genuine =
            info.code == libc::SI_QUEUE && info.nonce == nonce && usize::from(len) <= MAX_MESSAGE;
        genuine.then_some(Self {
            len,
            bytes: info.value,
        })
    }

    /// The record in which it goes through a pipe or a hand-off.
    pub(crate) fn into_record(self) -> [u8; 16] {
        let mut record = [0; 16];
        record[0] = self.len;
        record[8..].copy_from_slice(&self.bytes);
        record
    }

    /// `None` if it is no such record.
    pub(crate) fn from_record(record: [u8; 16]) -> Option<Self> {
        let mut bytes = [0; MAX_MESSAGE];
        bytes.copy_from_slice(&record[8..]);
        (usize::from(record[0]) <= MAX_MESSAGE).then_some(Self {
            len: record[0],
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn siginfo(word: Word) -> Siginfo {
        let mut info = Siginfo::new(40, 7, 1, 2);
        info.put(word);
        info
    }

    #[test]
    fn a_word_survives_the_siginfo() {
        for len in 0..=MAX_MESSAGE {
            let message = &b"\xff\0\x01abcde"[..len];
            let word = Word::new(message).unwrap();
            let back = Word::from_siginfo(&siginfo(word), 7).unwrap();
            assert_eq!(back.as_bytes(), message);
            assert_eq!(Word::from_record(word.into_record()), Some(word));
        }
        assert_eq!(Word::new(&[0; MAX_MESSAGE + 1]), None);
    }

    #[test]
    fn noise_is_no_word() {
        let good = siginfo(Word::new(b"x").unwrap());
        assert_eq!(
            Word::from_siginfo(&good, 8),
            None,
            "another channel's nonce"
        );
        for code in [0, -6, 1, i32::MIN] {
            assert_eq!(Word::from_siginfo(&Siginfo { code, ..good }, 7), None);
        }
        for errno in [9, 255, 256, -1, i32::MAX, i32::MIN] {
            assert_eq!(Word::from_siginfo(&Siginfo { errno, ..good }, 7), None);
        }
    }
}
