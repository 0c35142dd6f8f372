//! Numbers that look random and come out the same each time, for tests over data that is too much for every case.
//!
//! Owns: the one generator of these tests. Must never: read a clock, so that a failure comes again.
//! Look next: `tests/filter.rs`, `tests/corpus/random.rs`, `tests/fuzz.rs`.

/// A generator in the state given, which must not be 0 (xorshift64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }
}
