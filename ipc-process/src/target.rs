use serde::Serialize;
use serde::de::DeserializeOwned;

/// A function that another process can run: a `fn`, an instance of a generic `fn`, or a closure
/// that captures nothing. Implemented for up to eight arguments, which stay a tuple; name their
/// types in a closure.
///
/// What a function captured stays behind in this process, so capturing is refused when
/// compiling:
///
/// ```compile_fail,E0080
/// let seven = 7;
/// let _ = ipc_process::Process::new(move |n: i32| n * seven, (6,));
/// ```
pub trait Target<Args>: Copy + 'static {
    /// What the function returns.
    type Output: Serialize + DeserializeOwned + 'static;

    /// Calls it.
    fn call(self, args: Args) -> Self::Output;
}

macro_rules! target {
    ($($arg:ident)*) => {
        impl<F, R, $($arg),*> Target<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> R + Copy + 'static,
            R: Serialize + DeserializeOwned + 'static,
        {
            type Output = R;

            #[expect(non_snake_case, reason = "one name serves as type and as binding")]
            fn call(self, ($($arg,)*): ($($arg,)*)) -> R {
                self($($arg),*)
            }
        }
    };
}

target!(A);
target!(A B);
target!(A B C);
target!(A B C D);
target!(A B C D E);
target!(A B C D E G);
target!(A B C D E G H);
target!(A B C D E G H I);

impl<F, R> Target<()> for F
where
    F: Fn() -> R + Copy + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    type Output = R;

    fn call(self, (): ()) -> R {
        self()
    }
}
