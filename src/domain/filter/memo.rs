//! What was read before: the same text under the same key is not read again.
//!
//! Owns: finding an earlier value that may be the same, and the rule when it counts as read.
//! Must never: take a value for another: every byte is compared, and what its meaning hangs on besides.
//! Look next: `walk`, which asks before it reads an object or an array; `tape`, which leads back to the first one.
//!
//! Answers repeat themselves: of a page of Observations most bytes are the same subject, category and codes again. A value
//! ends where the same text ended before, since its brackets match. Who compares an object compares at most the
//! object itself, so that the whole work is bounded by the text times its depth.

use super::quotes::Quotes;

/// Texts shorter than this hold too little that comes again.
pub(super) const TEXT_BYTES_MIN: usize = 8 * 1024;
/// Places for values: so many for each of these bytes of text, within what the second-nearest cache holds.
const BYTES_FOR_A_PLACE: usize = 256;
const PLACES_MAX: usize = 4096;
/// A value with fewer quotes is read as quickly as it is found.
const QUOTES_MIN: usize = 4;
/// By how many quotes from its beginning a value is told from others.
const QUOTES_MAX: usize = 12;
/// Bytes before the quote that are looked at.
const WORD_BYTES: usize = 8;

/// A value that was read, with all that reading it did.
#[derive(Clone, Copy, Default)]
pub(super) struct Before {
    pub start: u32,
    pub len: u32,
    /// Its node; what it contains follows there.
    pub node: u32,
    /// How many offsets were listed in it.
    pub quotes: u32,
    /// What was told of it, among all that was told.
    pub told: (u32, u32),
    pub setting: Setting,
    pub marks: u8,
}

/// What must be the same besides the text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Setting {
    pub key: u16,
    /// Where in the compartment's paths.
    pub trail: u16,
    pub depth: u16,
}

/// The values read last, one for each place.
pub(super) struct Memo {
    /// For each key by how many quotes its values are told apart; zero if none was read.
    probes: Vec<u8>,
    places: Vec<Before>,
    shift: u32,
}

impl Memo {
    /// For a text of that many bytes, under so many keys; none where it would not pay.
    pub(super) fn new(text_bytes: usize, keys: usize) -> Self {
        if text_bytes < TEXT_BYTES_MIN {
            return Self { probes: Vec::new(), places: Vec::new(), shift: 0 };
        }
        let places = (text_bytes / BYTES_FOR_A_PLACE).next_power_of_two().min(PLACES_MAX);
        let shift = 64 - places.trailing_zeros();
        Self { probes: vec![0; keys], places: vec![Before::default(); places], shift }
    }

    /// Where a value that begins here is to be found, if it was read before.
    #[inline(always)]
    pub(super) fn place(&self, key: u16, start: usize, bytes: &[u8], quotes: &Quotes) -> Option<usize> {
        let probe = *self.probes.get(usize::from(key))?;
        if probe == 0 {
            return None;
        }
        let [first, _, second] = quotes.ahead(usize::from(probe) - 2)?.map(|at| at as usize);
        let word = |quote: usize| {
            bytes
                .get(quote.checked_sub(WORD_BYTES)?..quote)?
                .first_chunk::<WORD_BYTES>()
                .map(|word| u64::from_le_bytes(*word))
        };
        let mixed =
            word(first)?.rotate_left(31) ^ word(second)? ^ (u64::from(key) << 48) ^ ((second - start) as u64);
        usize::try_from(mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift).ok()
    }

    /// The value of that place, if the text that begins here is the same.
    #[inline(always)]
    pub(super) fn find(&self, place: usize, setting: Setting, start: usize, bytes: &[u8]) -> Option<&Before> {
        let before = self.places.get(place)?;
        if before.setting != setting {
            return None;
        }
        let (first, len) = (before.start as usize, before.len as usize);
        let same = bytes.get(first..first + len)? == bytes.get(start..start + len)?;
        (same && len > 0).then_some(before)
    }

    /// Remembers a value that was read.
    #[inline(always)]
    pub(super) fn keep(&mut self, place: Option<usize>, before: Before) {
        let quotes = before.quotes as usize;
        let Some(probe) = self.probes.get_mut(usize::from(before.setting.key)) else { return };
        if quotes < QUOTES_MIN {
            return;
        }
        let nearer = u8::try_from(quotes.min(QUOTES_MAX) - 1).unwrap_or(0);
        if *probe == 0 || nearer < *probe {
            *probe = nearer;
            return;
        }
        if let Some(place) = place.and_then(|place| self.places.get_mut(place)) {
            *place = before;
        }
    }
}
