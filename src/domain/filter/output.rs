//! Where a record is written to, and which of it was copied from the input.
//!
//! Owns: that what is cut off again is no longer said to be copied: else a plan would write it.
//! Must never: let anybody else shorten what was written.
//! Look next: `emit`, which writes; `plan`, which asks what was copied.

/// Input that was copied: from where, up to where, and at which place of the output.
#[derive(Clone, Copy)]
pub(super) struct Copied {
    pub at: usize,
    pub from: usize,
    pub to: usize,
}

/// Bytes under way to a client.
pub(super) struct Output<'o> {
    bytes: &'o mut Vec<u8>,
    /// None where nobody asks.
    copies: Option<Vec<Copied>>,
}

impl<'o> Output<'o> {
    /// Behind what stands there already.
    pub(super) fn new(bytes: &'o mut Vec<u8>, remembers: bool) -> Self {
        Self { bytes, copies: remembers.then(Vec::new) }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A byte of our own.
    #[inline(always)]
    pub(super) fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Words of our own.
    #[inline(always)]
    pub(super) fn words(&mut self, words: &str) {
        self.bytes.extend_from_slice(words.as_bytes());
    }

    /// Words of our own that somebody else appends.
    pub(super) fn by<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let (before, result) = (self.bytes.len(), write(self.bytes));
        debug_assert!(before <= self.bytes.len(), "only appended to");
        result
    }

    /// A record inside this one, which somebody else appends. What is copied is no longer known.
    pub(super) fn record<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.copies = None;
        write(self.bytes)
    }

    /// A stretch of the input.
    #[inline(always)]
    pub(super) fn copy(&mut self, text: &str, from: usize, to: usize) {
        if let Some(copies) = &mut self.copies {
            copies.push(Copied { at: self.bytes.len(), from, to });
        }
        self.bytes.extend_from_slice(text.as_bytes().get(from..to).unwrap_or_default());
    }

    /// Takes back what was written from there on.
    #[inline]
    pub(super) fn cut(&mut self, len: usize) {
        self.bytes.truncate(len);
        if let Some(copies) = &mut self.copies {
            let gone = copies.iter().rev().take_while(|copied| copied.at >= len).count();
            copies.truncate(copies.len() - gone);
        }
    }

    /// What of it was copied, in order; none where that is not known.
    pub(super) fn copied(self) -> Option<Vec<Copied>> {
        self.copies
    }
}
