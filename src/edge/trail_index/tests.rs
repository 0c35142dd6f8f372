//! Postings, and what the index's file holds.

use proptest::prelude::*;

use super::posting::{Posting, both, either, read};

proptest! {
    /// What is written is read; a list cut short or lengthened by a zero distance is refused.
    #[test]
    fn a_posting_is_read_as_it_was_written(numbers in proptest::collection::btree_set(any::<u64>(), 1..50)) {
        let mut posting = Posting::default();
        numbers.iter().for_each(|number| posting.push(*number));
        let numbers: Vec<u64> = numbers.into_iter().collect();
        prop_assert_eq!(read(posting.bytes()), Some(numbers));
        prop_assert_eq!(read(&[posting.bytes(), &[0]].concat()), None);
        prop_assert_eq!(read(&[posting.bytes(), &[0x80]].concat()), None);
    }

    #[test]
    fn sets_meet_as_sets_do(
        left in proptest::collection::btree_set(0_u64..40, 0..20),
        right in proptest::collection::btree_set(0_u64..40, 0..20),
    ) {
        let (l, r): (Vec<u64>, Vec<u64>) = (left.iter().copied().collect(), right.iter().copied().collect());
        prop_assert_eq!(both(&l, &r), left.intersection(&right).copied().collect::<Vec<_>>());
        prop_assert_eq!(either(l, r), left.union(&right).copied().collect::<Vec<_>>());
    }
}

#[test]
fn numbers_that_do_not_rise_are_left_out() {
    let mut posting = Posting::default();
    [3, 3, 2, 9].into_iter().for_each(|number| posting.push(number));
    assert_eq!(read(posting.bytes()), Some(vec![3, 9]));
    assert_eq!(read(&[0xff; 12]), None, "more than 64 bits");
}
