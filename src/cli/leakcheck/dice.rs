//! Chance that can be repeated: the same seed gives the same worlds and the same requests on every machine.
//!
//! Owns: the generator (SplitMix64) and the choices made with it.
//! Must never: read a clock or the machine's randomness, or be used for anything secret.
//! Look next: `worlds`, `generate`.

/// A stream of choices.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// `label` separates streams that share a seed.
    pub(super) fn new(seed: u64, label: &str) -> Self {
        let mix = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        Self(label.bytes().fold(seed ^ 0xCBF2_9CE4_8422_2325, mix))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        self.next().checked_rem(end).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
    }

    /// True `percent` times out of a hundred.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these, if there is one.
    pub(super) fn pick<'t, T>(&mut self, of: &'t [T]) -> Option<&'t T> {
        of.get(self.below(of.len()))
    }

    /// One of these words; empty if there is none.
    pub(super) fn word(&mut self, of: &[&'static str]) -> &'static str {
        self.pick(of).copied().unwrap_or("")
    }

    /// In an order that only the seed knows.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_choices() {
        let stream = |seed, label| {
            let mut dice = Dice::new(seed, label);
            (0..50).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(stream(1, "a"), stream(1, "a"));
        assert_ne!(stream(1, "a"), stream(2, "a"));
        assert_ne!(stream(1, "a"), stream(1, "b"));
        assert!(stream(1, "a").iter().all(|number| *number < 1000));
    }

    #[test]
    fn choices_from_nothing_are_nothing() {
        let mut dice = Dice::new(0, "");
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.pick::<u8>(&[]), None);
        dice.shuffle::<u8>(&mut []);
        let mut cards: Vec<u8> = (0..20).collect();
        dice.shuffle(&mut cards);
        assert_ne!(cards, (0..20).collect::<Vec<u8>>());
        cards.sort_unstable();
        assert_eq!(cards, (0..20).collect::<Vec<u8>>());
    }
}
