use std::hint::spin_loop;
use std::io;

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::floors::sys::{self, WordSender, WordWaiter};
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// The word a real-time signal carries.
const WORD: usize = 8;

/// `rt_sigqueueinfo(2)` and `sigwaitinfo(2)`, or with `SPIN` `sigtimedwait(2)` without time.
pub(crate) struct Words<const SPIN: bool> {
    sender: WordSender,
    waiter: WordWaiter,
}

impl<const SPIN: bool> Port for Words<SPIN> {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        let mut word = [0; WORD];
        word.copy_from_slice(message);
        let word = u64::from_ne_bytes(word);
        loop {
            match self.sender.send(word) {
                // RLIMIT_SIGPENDING reached: there is nothing to wait on, the peer must run.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                }
                sent => return Ok(sent?),
            }
        }
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let word = loop {
            let word = if SPIN {
                self.waiter.look()
            } else {
                self.waiter.wait()
            };
            match word {
                Err(error) if SPIN && error.kind() == io::ErrorKind::WouldBlock => spin_loop(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                word => break word?,
            }
        };
        buffer[..WORD].copy_from_slice(&word.to_ne_bytes());
        Ok(WORD)
    }
}

pub(crate) struct SignalLink<const SPIN: bool>;

impl<const SPIN: bool> Link for SignalLink<SPIN> {
    type Port = Words<SPIN>;

    fn open(spec: &Spec, peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        if spec.size > WORD {
            return Err(Failure::limit(WORD));
        }
        let to = |peer: u32| Bundle {
            descriptors: Vec::new(),
            data: peer.to_ne_bytes().into(),
        };
        Ok([to(peers[1]), to(peers[0])])
    }

    fn port(_spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        sys::block_floor_signal()?;
        let peer = bundle.data.try_into().map(i32::from_ne_bytes);
        let peer = peer.map_err(|_| Failure::Failed("the peer's id was lost".into()))?;
        Ok(Words {
            sender: WordSender::new(peer),
            waiter: WordWaiter::new(),
        })
    }
}
