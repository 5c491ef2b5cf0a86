//! Messages whose every byte follows from their number, so that any loss, doubling, exchange or
//! tear shows in the first wrong message.

/// splitmix64: small, seedable, and the same in both processes.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Fills `message` with what message `number` consists of.
pub(crate) fn fill(number: u64, message: &mut [u8]) {
    let mut random = Random::new(number);
    for chunk in message.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}

pub(crate) fn message(number: u64, len: usize) -> Vec<u8> {
    let mut message = vec![0; len];
    fill(number, &mut message);
    message
}

/// # Errors
/// What is wrong with it, in words.
pub(crate) fn check(number: u64, len: usize, got: &[u8]) -> Result<(), String> {
    if got.len() != len {
        return Err(format!(
            "message {number} has {} B instead of {len} B",
            got.len()
        ));
    }
    let mut random = Random::new(number);
    for (index, chunk) in got.chunks(8).enumerate() {
        if *chunk != random.next().to_le_bytes()[..chunk.len()] {
            return Err(format!(
                "message {number} of {len} B is wrong from byte {} on",
                index * 8
            ));
        }
    }
    Ok(())
}

/// The length of message `number`: mostly short, at times up to `longest`, never zero. Bounded
/// so that a hundred thousand of them stay below some 30 MB.
pub(crate) fn length(number: u64, longest: usize) -> usize {
    let mut random = Random::new(!number);
    let bound = match number % 1000 {
        999 => longest.min(128 << 10),
        n if n % 50 == 49 => longest.min(4096),
        _ => longest.min(128),
    };
    1 + random.below(bound)
}
