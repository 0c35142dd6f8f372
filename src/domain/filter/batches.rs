//! A Bundle that carries an answer, taken as it arrives: whole entries, a batch at a time.
//!
//! Owns: where `Bundle.entry` begins and ends, where its items end, and how much of it is held.
//! Must never: look into an entry, hold more than a batch and one unfinished entry, or let a batch out that would not
//! be sound in its place.
//! Look next: `parse`, which every batch is given to, and what is left of the envelope.
//!
//! The text is cut, never changed: a batch is the items between two commas of `entry` in an envelope of ours, and what
//! stands around the items is kept as the envelope's frame. JSON's grammar knows no context, so the whole is sound
//! exactly when every batch and the frame are. Here only strings and brackets are told apart, deep inside an entry many
//! at a time (`deep`); a bracket that does
//! not match its other one leaves a batch or a frame that does not parse.

use fearless_simd::Level;

use super::deep::{self, Deep};
use super::fault::FilterFault;
use super::text;
use crate::limits;

/// Brackets open inside an entry: the Bundle's, those of `entry`, its own.
const ENTRY_DEPTH: usize = 3;

/// A splitter that gives the same batches, however the bytes are cut.
pub struct Batches {
    kind: &'static str,
    batch_bytes: usize,
    /// Bytes taken so far.
    at: usize,
    /// All but the items of `entry`.
    frame: Vec<u8>,
    /// Items of `entry` that wait for their batch, with what stands between them.
    items: Vec<u8>,
    /// Where in `items` the last comma between two items stands.
    comma: Option<usize>,
    place: Place,
    /// What this processor can do.
    level: Level,
    depth: usize,
    string: Option<Text>,
    /// The member of the root that is being read is `entry`.
    is_entry: bool,
    /// Where in `frame` the name of the root's next member began.
    name: Option<usize>,
    expects_name: bool,
    has_entries: bool,
    /// A batch was cut off at a comma, so that something must follow.
    owes_item: bool,
    fault: Option<FilterFault>,
}

/// Inside a string.
#[derive(Clone, Copy)]
struct Text {
    escaped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Frame,
    Items,
}

impl Batches {
    /// At the start of an answer whose `Bundle.type` is to be `kind`.
    #[must_use]
    pub fn new(kind: &'static str) -> Self {
        Self::bounded(kind, limits::BATCH_BYTES)
    }

    /// With batches of at least so many bytes, but the last.
    #[must_use]
    pub fn bounded(kind: &'static str, batch_bytes: usize) -> Self {
        Self {
            kind,
            batch_bytes,
            at: 0,
            frame: Vec::new(),
            items: Vec::new(),
            comma: None,
            place: Place::Frame,
            level: Level::new(),
            depth: 0,
            string: None,
            is_entry: false,
            name: None,
            expects_name: false,
            has_entries: false,
            owes_item: false,
            fault: None,
        }
    }

    /// Takes the next piece and appends the batches it completes to `batches`, each a Bundle of the kind expected.
    ///
    /// # Errors
    /// `Size` for an entry over `limits::RECORD_BYTES_MAX` or an envelope over `limits::BUNDLE_FRAME_BYTES_MAX`, `Depth`,
    /// `Duplicate` for a second `entry`, `Grammar` for an item that is missing; offsets are of the answer. From then on every
    /// call fails.
    pub fn feed(&mut self, piece: &[u8], batches: &mut Vec<Vec<u8>>) -> Result<(), FilterFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let taken = self.take(piece, batches);
        self.fault = taken.err();
        taken
    }

    /// The last batch, if there are entries, and the envelope without its entries.
    ///
    /// # Errors
    /// As [`Batches::feed`]. Whether the envelope is whole is for its reader to find.
    pub fn finish(mut self) -> Result<(Option<Vec<u8>>, Vec<u8>), FilterFault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let blank = is_blank(&self.items);
        if blank && self.owes_item {
            return Err(FilterFault::Grammar(self.at));
        }
        let last = (!blank).then(|| self.bundle(self.items.len()));
        Ok((last, std::mem::take(&mut self.frame)))
    }

    fn take(&mut self, piece: &[u8], batches: &mut Vec<Vec<u8>>) -> Result<(), FilterFault> {
        let (mut rest, mut look_until) = (piece, 0);
        while let Some(&first) = rest.first() {
            if self.at >= look_until {
                let passed = self.pass(rest)?;
                // What stopped it is within the next block: to try again before its end would be in vain.
                look_until = self.at + deep::BLOCK_BYTES;
                rest = rest.get(passed..).unwrap_or_default();
                if passed > 0 {
                    continue;
                }
            }
            let length = self.run(rest);
            let (run, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            self.keep(run, first)?;
            self.at += length;
            rest = behind;
            if self.comma.is_some_and(|comma| comma >= self.batch_bytes) {
                batches.push(self.cut()?);
            }
        }
        Ok(())
    }

    /// Keeps what stands deep inside an entry, where no comma of the list and no end of it can be. Gives how many bytes.
    fn pass(&mut self, rest: &[u8]) -> Result<usize, FilterFault> {
        let escaped = self.string.is_some_and(|string| string.escaped);
        if self.place != Place::Items || escaped || self.depth < ENTRY_DEPTH {
            return Ok(0);
        }
        let from = Deep { depth: self.depth, in_string: self.string.is_some() };
        let (passed, now) = deep::pass(self.level, rest, from, ENTRY_DEPTH);
        let (run, _) = rest.split_at_checked(passed).unwrap_or_default();
        self.append(run)?;
        self.at += passed;
        self.depth = now.depth;
        self.string = now.in_string.then_some(Text { escaped: false });
        Ok(passed)
    }

    /// How many bytes may be kept at once: those of a string up to its end, or one byte with a meaning of its own,
    /// or all up to the next.
    fn run(&self, rest: &[u8]) -> usize {
        let special = match self.string {
            Some(Text { escaped: true }) => return 1,
            Some(Text { escaped: false }) => memchr::memchr2(b'"', b'\\', rest),
            None => rest.iter().position(|byte| is_special(*byte)),
        };
        special.map_or(rest.len(), |length| length.max(1))
    }

    fn keep(&mut self, run: &[u8], first: u8) -> Result<(), FilterFault> {
        match (self.place, self.string) {
            (_, Some(string)) => self.inside(run, first, string),
            (_, None) if !is_special(first) => self.append(run),
            (Place::Frame, None) => self.frame_byte(run, first),
            (Place::Items, None) => self.item_byte(run, first),
        }
    }

    fn inside(&mut self, run: &[u8], first: u8, string: Text) -> Result<(), FilterFault> {
        self.append(run)?;
        self.string = match (string.escaped, first) {
            (true, _) => Some(Text { escaped: false }),
            (false, b'\\') => Some(Text { escaped: true }),
            (false, b'"') => None,
            (false, _) => Some(string),
        };
        if self.string.is_none() {
            self.end_name();
        }
        Ok(())
    }

    fn frame_byte(&mut self, run: &[u8], first: u8) -> Result<(), FilterFault> {
        match first {
            b'"' => {
                self.string = Some(Text { escaped: false });
                let is_name = self.depth == 1 && std::mem::take(&mut self.expects_name);
                self.name = is_name.then(|| self.frame.len() + 1);
            }
            b'{' | b'[' => {
                let entries = first == b'[' && self.depth == 1 && self.is_entry;
                self.expects_name = self.depth == 0 && first == b'{';
                self.open()?;
                if entries {
                    self.append(run)?;
                    self.place = Place::Items;
                    return if std::mem::replace(&mut self.has_entries, true) {
                        Err(FilterFault::Duplicate(self.at))
                    } else {
                        Ok(())
                    };
                }
            }
            b'}' | b']' => self.close()?,
            _ if self.depth == 1 => {
                self.expects_name = true;
                self.is_entry = false;
            }
            _ => {}
        }
        self.append(run)
    }

    fn item_byte(&mut self, run: &[u8], first: u8) -> Result<(), FilterFault> {
        match first {
            b'"' => self.string = Some(Text { escaped: false }),
            b'{' | b'[' => self.open()?,
            b'}' | b']' => {
                self.close()?;
                if self.depth == 1 {
                    self.place = Place::Frame;
                    self.is_entry = false;
                }
            }
            _ if self.depth == 2 => self.comma = Some(self.items.len()),
            _ => {}
        }
        self.append(run)
    }

    fn open(&mut self) -> Result<(), FilterFault> {
        self.depth += 1;
        if self.depth > limits::JSON_DEPTH_MAX { Err(FilterFault::Depth(self.at)) } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), FilterFault> {
        self.depth = self.depth.checked_sub(1).ok_or(FilterFault::Grammar(self.at))?;
        Ok(())
    }

    /// The name of a member of the root is read.
    fn end_name(&mut self) {
        let Some(start) = self.name.take() else { return };
        let end = self.frame.len().saturating_sub(1);
        let name = self.frame.get(start..end).and_then(|name| std::str::from_utf8(name).ok());
        self.is_entry = name.is_some_and(|name| text::unescape(name) == "entry");
    }

    fn append(&mut self, run: &[u8]) -> Result<(), FilterFault> {
        let (held, bytes_max) = match self.place {
            Place::Frame => (&mut self.frame, limits::BUNDLE_FRAME_BYTES_MAX),
            Place::Items => (
                &mut self.items,
                limits::RECORD_BYTES_MAX + self.batch_bytes + limits::BUNDLE_FRAME_BYTES_MAX,
            ),
        };
        if held.len() + run.len() > bytes_max {
            return Err(FilterFault::Size(self.at));
        }
        held.extend_from_slice(run);
        Ok(())
    }

    /// The items before the last comma.
    fn cut(&mut self) -> Result<Vec<u8>, FilterFault> {
        let comma = self.comma.take().unwrap_or_default();
        if self.items.get(..comma).is_none_or(is_blank) {
            return Err(FilterFault::Grammar(self.at));
        }
        let batch = self.bundle(comma);
        self.items.drain(..=comma);
        self.owes_item = true;
        Ok(batch)
    }

    fn bundle(&self, items: usize) -> Vec<u8> {
        let head = format!(r#"{{"resourceType":"Bundle","type":"{}","entry":["#, self.kind);
        let items = self.items.get(..items).unwrap_or_default();
        [head.as_bytes(), items, b"]}"].concat()
    }
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").field("at", &self.at).finish_non_exhaustive()
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b',')
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::filter::{Bases, Document, parse};
    use proptest::prelude::*;

    const BASES: Bases<'static> = Bases { upstream: &["http://emr"], public: "http://gate" };
    const WHOLE: &str = r#" {"resourceType" : "Bundle","link":[{"relation":"self","url":"http://emr/entry,[{"}],
        "type":"searchset", "\u0065ntry": [ {"fullUrl":"http://emr/Patient/a","resource":{"resourceType":"Patient",
        "id":"a","name":[{"text":"a ]} \" \\"}]},"search":{"mode":"match"}} ,
        {"resource":{"resourceType":"Observation","id":"o","status":"final","code":{},"subject":{"reference":"Patient/a"}}},
        {"resource":{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"List","id":"l"}}]}}
        ], "total": 3 } "#;

    /// What is read of an entry: its address, the record's bytes, and the patients it is about.
    type Seen = (Option<String>, Vec<u8>, String);
    /// What is read of an answer, its total first.
    type Read = (Option<u64>, Vec<Seen>);

    fn entries(document: &Document<'_>) -> Option<Vec<Seen>> {
        let envelope = document.bundle().filter(|envelope| envelope.kind == "searchset")?;
        let read = envelope.entries.iter().map(|entry| {
            let record = entry.record.unwrap_or(usize::MAX);
            let facts = document.records().get(record).map(|record| format!("{:?}", *record.facts.patients));
            (entry.full_url.clone(), document.raw(record).to_vec(), facts.unwrap_or_default())
        });
        Some(read.collect())
    }

    fn whole(text: &[u8]) -> Option<Read> {
        let document = parse(text, &BASES).ok()?;
        Some((document.bundle()?.total, entries(&document)?))
    }

    fn batched(text: &[u8], cuts: &[usize], batch_bytes: usize) -> Option<Read> {
        let mut batches = Batches::bounded("searchset", batch_bytes);
        let (mut found, mut rest) = (Vec::new(), text);
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut % (rest.len() + 1));
            batches.feed(piece, &mut found).ok()?;
            rest = behind;
        }
        batches.feed(rest, &mut found).ok()?;
        let (last, frame) = batches.finish().ok()?;
        found.extend(last);
        let frame = parse(&frame, &BASES).ok()?;
        let envelope = frame.bundle().filter(|envelope| envelope.kind == "searchset")?;
        assert!(envelope.entries.is_empty());
        let mut all = Vec::new();
        for batch in found {
            all.extend(entries(&parse(&batch, &BASES).ok()?)?);
        }
        Some((envelope.total, all))
    }

    #[test]
    fn a_batch_ends_behind_a_whole_entry() {
        let (total, read) = whole(WHOLE.as_bytes()).unwrap();
        assert_eq!((total, read.len()), (Some(3), 3));
        for batch_bytes in [0, 1, 150, 1_000_000] {
            assert_eq!(batched(WHOLE.as_bytes(), &[], batch_bytes), whole(WHOLE.as_bytes()), "{batch_bytes}");
        }
    }

    #[test]
    fn what_is_unsound_whole_is_unsound_in_batches() {
        let cases = [
            r#"{"resourceType":"Bundle","type":"searchset","entry":[,{}]}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[{},]}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[{},,{}]}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[{}],"entry":[]}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[{}],"\u0065ntry":[{}]}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[{}]}{}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[{}]"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[{"a":"]}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[{"fullUrl":]}"#,
            r#"{"resourceType":"Bundle","type":"collection","entry":[{}]}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":[7]}"#,
            r#"{"resourceType":"Bundle","type":"searchset","entry":{"fullUrl":"x"}}"#,
            "",
            "[]",
        ];
        for text in cases {
            assert_eq!(whole(text.as_bytes()), None, "{text}");
            for batch_bytes in [0, 10_000] {
                assert_eq!(batched(text.as_bytes(), &[], batch_bytes), None, "{text} {batch_bytes}");
            }
        }
    }

    #[test]
    fn nothing_is_held_without_bound() {
        let mut batches = Batches::bounded("searchset", 10);
        let head = br#"{"resourceType":"Bundle","type":"searchset","entry":[{"fullUrl":""#;
        batches.feed(head, &mut Vec::new()).unwrap();
        let piece = vec![b'a'; 1024 * 1024];
        let fed = (0..64).find_map(|_| batches.feed(&piece, &mut Vec::new()).err());
        assert!(matches!(fed, Some(FilterFault::Size(_))), "{fed:?}");
        assert!(batches.feed(b"a", &mut Vec::new()).is_err() && batches.finish().is_err());
    }

    proptest! {
        /// Cut anywhere, and changed anywhere: batches say what the whole says.
        #[test]
        fn batches_are_the_whole(
            cuts in prop::collection::vec(0_usize..400, 0..6),
            batch_bytes in 0_usize..600,
            edits in prop::collection::vec((0_usize..900, prop::sample::select(b"\"{}[],:\\ ae1".to_vec()), 0_u8..3), 0..4),
        ) {
            let mut text = WHOLE.as_bytes().to_vec();
            for (at, byte, how) in edits {
                let at = at % text.len();
                match how {
                    0 => text[at] = byte,
                    1 => text.insert(at, byte),
                    _ => drop(text.remove(at)),
                }
            }
            prop_assert_eq!(batched(&text, &cuts, batch_bytes), whole(&text));
        }
    }
}
