//! Where a term leads: rising sequence numbers, in few bytes.
//!
//! Owns: the encoding (LEB128 of the first number and of each distance after it), and what sets of them have in common.
//! Must never: take bytes it would not have written.
//! Look next: `shard`, which keeps them.

/// A list under construction.
#[derive(Debug, Default)]
pub(super) struct Posting {
    bytes: Vec<u8>,
    last: Option<u64>,
}

impl Posting {
    /// Adds `number`, which must be above all that are there; another is left out.
    pub(super) fn push(&mut self, number: u64) {
        let distance = match self.last {
            None => number,
            Some(last) if number > last => number - last,
            Some(_) => return,
        };
        self.last = Some(number);
        let mut rest = distance;
        loop {
            let low = u8::try_from(rest & 0x7f).unwrap_or_default();
            rest >>= 7;
            if rest == 0 {
                self.bytes.push(low);
                return;
            }
            self.bytes.push(low | 0x80);
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The numbers in `bytes`; `None` when they are no posting.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut numbers: Vec<u64> = Vec::with_capacity(bytes.len() / 2);
    let (mut value, mut shift) = (0_u64, 0_u32);
    for byte in bytes {
        let low = u64::from(byte & 0x7f);
        if shift > 63 || (low << shift) >> shift != low {
            return None;
        }
        value |= low << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let number = match numbers.last() {
                None => value,
                Some(last) => last.checked_add(value).filter(|_| value > 0)?,
            };
            numbers.push(number);
            (value, shift) = (0, 0);
        }
    }
    (shift == 0).then_some(numbers)
}

/// What is in both; both rise.
pub(super) fn both(left: &[u64], right: &[u64]) -> Vec<u64> {
    let (few, many) = if left.len() <= right.len() { (left, right) } else { (right, left) };
    let mut rest = many;
    let mut found = Vec::new();
    for number in few {
        rest =
            rest.split_at_checked(rest.partition_point(|other| other < number)).map_or(&[], |(_, rest)| rest);
        if rest.first() == Some(number) {
            found.push(*number);
        }
    }
    found
}

/// What is in either; rises.
pub(super) fn either(mut left: Vec<u64>, right: Vec<u64>) -> Vec<u64> {
    left.extend(right);
    left.sort_unstable();
    left.dedup();
    left
}
