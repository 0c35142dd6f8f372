//! Passing over what stands deep inside an entry, 64 bytes at a time.
//!
//! Owns: following strings and brackets where nothing of the Bundle's own can stand.
//! Must never: pass over a byte at which an entry could end, or guess at an escape; `batches` looks at those one by one.
//! Look next: `batches`, which asks.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

use super::quotes::prefix_xor;
use crate::limits;

/// Bytes looked at together: the bits of a word.
pub(super) const BLOCK_BYTES: usize = 64;
/// `[` and `]` differ from `{` and `}` in this bit, and from all else that JSON has outside of strings in others.
const BRACKET_BIT: u8 = 0x20;

/// Where in JSON a reader stands: how many brackets are open, and whether in a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deep {
    pub depth: usize,
    pub in_string: bool,
}

/// How many bytes may be passed over, and where one stands then: whole blocks in which never fewer than `floor`
/// brackets are open, nor more than allowed, and no backslash stands.
pub(super) fn pass(level: Level, bytes: &[u8], from: Deep, floor: usize) -> (usize, Deep) {
    let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
    dispatch!(level, simd => blocks_passed(simd, blocks, from, floor))
}

#[inline(always)]
fn blocks_passed<S: Simd>(simd: S, blocks: &[[u8; BLOCK_BYTES]], from: Deep, floor: usize) -> (usize, Deep) {
    let (mut now, mut passed) = (from, 0);
    for block in blocks {
        let text = u8x64::from_slice(simd, block);
        let brackets = text | u8x64::splat(simd, BRACKET_BIT);
        let quotes = text.simd_eq(b'"').to_bitmask();
        let inside = prefix_xor(quotes) ^ if now.in_string { u64::MAX } else { 0 };
        let opened = (brackets.simd_eq(b'{').to_bitmask() & !inside).count_ones() as usize;
        let closed = (brackets.simd_eq(b'}').to_bitmask() & !inside).count_ones() as usize;
        let escapes = text.simd_eq(b'\\').to_bitmask();
        if escapes != 0 || now.depth < floor + closed || now.depth + opened > limits::JSON_DEPTH_MAX {
            break;
        }
        now = Deep { depth: now.depth + opened - closed, in_string: inside >> 63 == 1 };
        passed += BLOCK_BYTES;
    }
    (passed, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same byte by byte; none if it must not be passed over.
    fn plain(block: &[u8], from: Deep, floor: usize) -> Option<Deep> {
        let mut now = from;
        for byte in block {
            match (byte, now.in_string) {
                (b'\\', _) => return None,
                (b'"', _) => now.in_string = !now.in_string,
                (b'{' | b'[', false) => now.depth += 1,
                (b'}' | b']', false) => {
                    now.depth = now.depth.checked_sub(1).filter(|depth| *depth >= floor)?
                }
                _ => {}
            }
        }
        (now.depth <= limits::JSON_DEPTH_MAX).then_some(now)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        /// Never another place than byte by byte, and nothing that must be looked at.
        #[test]
        fn what_is_passed_over_is_as_byte_by_byte(
            bytes in proptest::collection::vec(
                prop_oneof![9 => Just(b'a'), 1 => proptest::sample::select(b"\"{}[],:\\;=\xc3\xdb\xfb".as_slice())],
                0..400,
            ),
            depth in 3..12_usize,
            in_string in any::<bool>(),
        ) {
            let from = Deep { depth, in_string };
            let (passed, found) = pass(Level::new(), &bytes, from, 3);
            prop_assert!(passed % BLOCK_BYTES == 0 && passed <= bytes.len());
            prop_assert_eq!(plain(&bytes[..passed], from, 3), Some(found));
        }

        /// Plain depths are passed over.
        #[test]
        fn whole_blocks_of_text_are_passed_over(blocks in 1..9_usize, depth in 3..12_usize) {
            let bytes = vec![b'x'; blocks * BLOCK_BYTES + 7];
            let from = Deep { depth, in_string: false };
            prop_assert_eq!(pass(Level::new(), &bytes, from, 3), (blocks * BLOCK_BYTES, from));
        }
    }
}
