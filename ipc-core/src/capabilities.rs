/// What a mechanism promises beyond the common contract, as a constant.
///
/// The conformance suite checks exactly what is declared here: what is promised must hold, what
/// is not promised must fail with the documented error and never in silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Who keeps one message apart from the next.
    pub boundaries: Boundaries,
    /// Whether a message of no bytes can be sent.
    pub empty: Empty,
    /// How many senders may feed one channel.
    pub producers: Arity,
    /// What several receivers of one channel see.
    pub consumers: Consumers,
    /// The order in which messages arrive.
    pub order: Order,
    /// What a sender meets when the receiver does not keep up.
    pub back_pressure: BackPressure,
    /// How the death of the peer is learnt.
    pub death: DeathNotice,
    /// How long a committed message lives.
    pub retention: Retention,
    /// Whether the ends can be watched with `poll(2)` for messages and room.
    pub readiness: Readiness,
}

/// Who keeps one message apart from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundaries {
    /// The kernel object carries messages.
    Kernel,
    /// The kernel object carries bytes; this library puts a length in front of each message.
    Framed,
}

/// Whether a message of no bytes can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// It arrives as a message of no bytes, distinct from the end of the channel.
    Carried,
    /// It is refused with `Limit`.
    Refused,
}

/// How many ends one side of a channel may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// Several: the end implements [`TryClone`](crate::TryClone).
    Many,
}

/// What several receivers of one channel see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumers {
    /// There is one receiver.
    One,
    /// Each message goes to exactly one of several receivers, which come by
    /// [`TryClone`](crate::TryClone).
    Competing,
}

/// The order in which messages arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In the order in which one sender sent them.
    Fifo,
    /// Higher priority first, first in first out within one priority; `send` uses one priority,
    /// so a program that asks for none sees [`Order::Fifo`], as the suite checks. The call that asks
    /// for one is the mechanism's own, and so are its tests.
    Priority,
}

/// What a sender meets when the receiver does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackPressure {
    /// `Full`, or it waits for room.
    Waits,
    /// There is always room until the storage itself is full, which is `Limit`.
    Unbounded,
}

/// How the death of the peer is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeathNotice {
    /// The kernel object itself reports a hang-up.
    HangUp,
    /// The object knows nothing of its holders; a [`Lifeline`](crate::lifeline::Lifeline) beside
    /// it reports the hang-up.
    Lifeline,
    /// There is none to give: both ends are in one process and end with it. Such ends have no
    /// names (`Invalid`), and their [`Handoff`](crate::Handoff) is refused.
    SameProcess,
}

/// How long a committed message lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// With the receiving process: what it had not received dies with it, and a receiver that is
    /// handed to another process arrives there empty.
    Receiver,
    /// As long as any end is open, in whichever process.
    Object,
}

/// Whether the ends can be watched with `poll(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Both ends implement [`Pollable`](crate::Pollable).
    Pollable,
    /// Only blocking and polling calls.
    None,
}
