/// A time of at most three digits and a unit.
pub(super) fn time(ns: f64) -> String {
    match ns {
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 999_500.0 => format!("{} us", digits(ns / 1e3)),
        ns => format!("{} ms", digits(ns / 1e6)),
    }
}

/// A number of about three digits and a prefix.
pub(super) fn count(number: f64) -> String {
    match number {
        n if n < 999.5 => digits(n),
        n if n < 999_500.0 => format!("{} k", digits(n / 1e3)),
        n if n < 999_500_000.0 => format!("{} M", digits(n / 1e6)),
        n => format!("{} G", digits(n / 1e9)),
    }
}

fn digits(number: f64) -> String {
    match number {
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

pub(super) fn bytes(size: usize) -> String {
    match size {
        size if size < 1 << 10 => format!("{size} B"),
        size if size < 1 << 20 => format!("{} KiB", size >> 10),
        size => format!("{} MiB", size >> 20),
    }
}

/// Lines of at most `width` characters, broken between words; what follows the first is indented.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, time, wrap};

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(time(131.0), "131 ns");
        assert_eq!(time(5_912.0), "5.91 us");
        assert_eq!(time(72_400_000.0), "72.4 ms");
        assert_eq!(count(2_100_000.0), "2.10 M");
        assert_eq!(bytes(65536), "64 KiB");
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(wrap("one two three four", 9, 2), "one two\n  three\n  four");
        assert_eq!(wrap("longer-than-that", 9, 2), "longer-than-that");
    }
}
