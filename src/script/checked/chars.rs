//! Iterating over the characters of a string without copying them: Rhai's own `chars`, and its `for` over a
//! string, first make an array of them, four times the size of the text.

use std::any::TypeId;

use rhai::{Dynamic, INT, ImmutableString, Module};

use super::{ExclusiveRange, InclusiveRange, start_and_len};

/// The next characters of a shared string.
#[derive(Clone)]
pub(super) struct Chars {
    string: ImmutableString,
    /// Byte offset of the next character.
    next: usize,
    /// Characters left at most.
    left: usize,
}

impl Chars {
    /// At most `len` characters from `start`, which is counted from the end when negative.
    fn new(string: ImmutableString, start: INT, len: INT) -> Self {
        Self {
            next: super::strings::offset(&string, start).unwrap_or(string.len()),
            left: usize::try_from(len).unwrap_or(0),
            string,
        }
    }
}

impl Iterator for Chars {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        self.left = self.left.checked_sub(1)?;
        let next = self.string[self.next..].chars().next()?;
        self.next += next.len_utf8();
        Some(next)
    }
}

/// Makes `for` iterate over strings and over [`Chars`].
pub(super) fn register_iterators(module: &mut Module) {
    module.set_iterator::<Chars>();
    module.set_iter(TypeId::of::<ImmutableString>(), |string| {
        let string = string.cast::<ImmutableString>();
        Box::new(Chars::new(string, 0, INT::MAX).map(Dynamic::from))
    });
}

#[rhai::export_module]
pub(super) mod functions {
    #[rhai_fn(name = "chars", get = "chars")]
    pub fn chars(string: ImmutableString) -> Chars {
        Chars::new(string, 0, INT::MAX)
    }

    #[rhai_fn(name = "chars")]
    pub fn chars_from(string: ImmutableString, start: INT) -> Chars {
        Chars::new(string, start, INT::MAX)
    }

    #[rhai_fn(name = "chars")]
    pub fn chars_window(string: ImmutableString, start: INT, len: INT) -> Chars {
        Chars::new(string, start, len)
    }

    #[rhai_fn(name = "chars")]
    pub fn chars_range(string: ImmutableString, range: ExclusiveRange) -> Chars {
        let (start, len) = start_and_len(&range);
        Chars::new(string, start, len)
    }

    #[rhai_fn(name = "chars")]
    pub fn chars_inclusive(string: ImmutableString, range: InclusiveRange) -> Chars {
        let start = (*range.start()).max(0);
        // Unlike `sub_string`, this has no first character when the range ends before it starts.
        let end = (*range.end()).clamp(start - 1, INT::MAX - 1);
        Chars::new(string, start, end - start + 1)
    }
}
