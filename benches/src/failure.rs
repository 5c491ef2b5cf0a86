use std::error::Error;

/// Why a row has no figures.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The channel cannot carry this, and says so.
    Unsupported(String),
    /// It should have worked.
    Failed(String),
}

impl Failure {
    /// Messages are longer than the channel carries.
    #[must_use]
    pub fn limit(bytes: usize) -> Self {
        Self::Unsupported(format!("limit {bytes} B"))
    }
}

/// Any error of a call is a failed row; `Failure` itself is deliberately no `Error`.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What every step of a row gives.
pub type Outcome<T> = Result<T, Failure>;
