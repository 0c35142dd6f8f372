//! Data keys: what entries are sealed with, each wrapped for the configured key in a file of its own.
//!
//! Owns: the files below `keys/`: making, reading and wrapping them, and opening entries with them.
//! Must never: write a data key unwrapped; let an entry be written before its key's file and name are synced; believe a file
//! that the log did not sign.
//! Look next: `rotation`, which wraps them for another key; `entry` for the cipher; `docs/audit.md` for the format.
//!
//! A data key seals the entries from its `first` to the next key's `first`, so that a key without which nothing can be read any
//! more is known without looking at entries. The file is a statement of the log (`domain::ledger::statement`): every byte of it
//! is under the log's signature, so that who has no secret can check it too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::entry::{self, Cipher, DIRECT, EntryError, KeyId, Packer, WRAPPED_BYTES};
use super::keys::Keys;
use super::layout::{DATA_KEYS, make_directory, replace, sync_directory};
use super::writer::Held;
use crate::domain::ledger::{sign_statement, verify_statement};
use crate::limits::{KEY_FILE_BYTES_MAX, KEY_WRAPS_MAX};

/// The kind of statement.
const KIND: &str = "chartgate audit data key";

/// A key wrapped for another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrap {
    by: KeyId,
    wrapped: [u8; WRAPPED_BYTES],
}

/// The file of one data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub(super) id: KeyId,
    /// The first entry it may seal.
    pub(super) first: u64,
    /// For the key in force, and behind it for the next one while keys are changed.
    wraps: Vec<Wrap>,
}

pub(super) fn hex(id: KeyId) -> String {
    id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn unhex(text: &str) -> Option<KeyId> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = text.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
    let id = bytes.try_into().ok()?;
    (hex(id) == text).then_some(id)
}

/// Where the file of a data key is.
pub(super) fn path(id: KeyId) -> String {
    format!("{DATA_KEYS}/{}", hex(id))
}

/// The data key whose file this is.
pub(super) fn id_of(path: &str) -> Option<KeyId> {
    unhex(path.strip_prefix(DATA_KEYS)?.strip_prefix('/')?)
}

impl KeyFile {
    /// Reads the file named after `id`.
    ///
    /// # Errors
    /// What is wrong with it, whoever holds which key.
    pub(super) fn read(id: KeyId, bytes: &[u8], origin: &str, keys: &Keys) -> Result<Self, String> {
        let lines = verify_statement(keys.signer.key(), KIND, origin, bytes);
        let lines = lines.map_err(|_| "is not the file of a data key that this log signed".to_owned())?;
        let read = Self::parse(&lines).filter(|read| read.lines() == lines);
        let read = read.ok_or_else(|| "is not written as the file of a data key".to_owned())?;
        if read.id == id { Ok(read) } else { Err("is the file of another data key".to_owned()) }
    }

    fn parse(lines: &[String]) -> Option<Self> {
        let (id, rest) = lines.split_first()?;
        let (first, rest) = rest.split_first()?;
        let wraps = rest.iter().map(|line| {
            let (by, wrapped) = line.split_once(' ')?;
            let wrapped = STANDARD.decode(wrapped).ok()?.try_into().ok()?;
            Some(Wrap { by: unhex(by)?, wrapped })
        });
        let wraps: Vec<Wrap> = wraps.collect::<Option<_>>()?;
        let known = 1..=KEY_WRAPS_MAX;
        known.contains(&wraps.len()).then_some(Self { id: unhex(id)?, first: first.parse().ok()?, wraps })
    }

    fn lines(&self) -> Vec<String> {
        let wraps =
            self.wraps.iter().map(|wrap| format!("{} {}", hex(wrap.by), STANDARD.encode(wrap.wrapped)));
        [hex(self.id), self.first.to_string()].into_iter().chain(wraps).collect()
    }

    /// The key, unwrapped with this one.
    pub(super) fn unwrap(&self, origin: &str, outer: &Cipher) -> Result<[u8; 32], EntryError> {
        let ours = self.wraps.iter().find(|wrap| wrap.by == outer.id()).ok_or(EntryError::NoKey)?;
        outer.unwrap(origin, self.id, &ours.wrapped)
    }

    /// The key, and that it is the one the file is named after.
    pub(super) fn cipher(&self, origin: &str, keys: &Keys) -> Result<Cipher, String> {
        let key = match self.unwrap(origin, &keys.cipher) {
            Ok(key) => key,
            Err(EntryError::NoKey) => {
                return Err(format!("is not wrapped for the configured key, but for {}", self.wrappers()));
            }
            Err(_) => return Err("does not unwrap with the configured key".to_owned()),
        };
        let cipher = Cipher::new(&key).filter(|cipher| cipher.id() == self.id);
        cipher.ok_or_else(|| "holds another key than it is named after".to_owned())
    }

    fn wrappers(&self) -> String {
        self.wraps.iter().map(|wrap| hex(wrap.by)).collect::<Vec<_>>().join(" and ")
    }

    /// The key it is wrapped for next, where keys are being changed.
    pub(super) fn next(&self) -> Option<KeyId> {
        self.wraps.get(1).map(|wrap| wrap.by)
    }

    /// Whether it is wrapped for this key, and for no other.
    pub(super) fn is_only_for(&self, key: KeyId) -> bool {
        self.wraps.iter().all(|wrap| wrap.by == key)
    }

    /// The same, wrapped for these keys in this order.
    pub(super) fn wrapped_for(
        &self,
        origin: &str,
        key: &[u8; 32],
        outer: &[&Cipher],
    ) -> Result<Self, EntryError> {
        let wrap = |outer: &&Cipher| Ok(Wrap { by: outer.id(), wrapped: outer.wrap(origin, self.id, key)? });
        let wraps = outer.iter().map(wrap).collect::<Result<_, EntryError>>()?;
        Ok(Self { id: self.id, first: self.first, wraps })
    }

    /// Writes the file in the place of an older one, whole. Its name lasts after [`sync_keys`].
    pub(super) fn write(&self, directory: &Path, origin: &str, keys: &Keys) -> io::Result<()> {
        let bytes = sign_statement(&keys.signer, KIND, origin, &self.lines()).map_err(io::Error::other)?;
        replace(&directory.join(path(self.id)), &bytes)
    }
}

/// Makes the names of key files last.
pub(super) fn sync_keys(directory: &Path) -> io::Result<()> {
    sync_directory(&directory.join(DATA_KEYS))
}

/// A file for the key `secret`, which may seal entries from `first` on. It lasts when this returns.
pub(super) fn keep(
    directory: &Path,
    origin: &str,
    keys: &Keys,
    (secret, first): (&[u8; 32], u64),
    next: Option<&Cipher>,
) -> io::Result<Cipher> {
    let cipher = Cipher::new(secret).ok_or_else(|| io::Error::other("a data key cannot be used"))?;
    match make_directory(&directory.join(DATA_KEYS)) {
        Ok(()) => sync_directory(directory)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let bare = KeyFile { id: cipher.id(), first, wraps: Vec::new() };
    let outer: Vec<&Cipher> = [&keys.cipher].into_iter().chain(next).collect();
    let file = bare.wrapped_for(origin, secret, &outer).map_err(io::Error::other)?;
    file.write(directory, origin, keys)?;
    sync_keys(directory)?;
    Ok(cipher)
}

/// The data key entries are sealed with now, and its file, which must stay where it is.
pub(super) struct Sealer {
    cipher: Cipher,
    packer: Packer,
    pub(super) file: Held,
}

impl Sealer {
    /// A new data key for the entries from `first` on. Its file lasts when this returns, before anything is sealed with it.
    pub(super) fn make(
        directory: &Path,
        origin: &str,
        keys: &Keys,
        first: u64,
        next: Option<&Cipher>,
    ) -> io::Result<Self> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(io::Error::other)?;
        let cipher = keep(directory, origin, keys, (&secret, first), next)?;
        Self::hold(directory, cipher)
    }

    /// The data key that sealed the entries before.
    pub(super) fn hold(directory: &Path, cipher: Cipher) -> io::Result<Self> {
        let file = held(directory, cipher.id())?;
        let packer = Packer::new().map_err(io::Error::other)?;
        Ok(Self { cipher, packer, file })
    }

    /// Seals `part` for its place in the log; compressed where that is shorter.
    pub(super) fn pack(&mut self, origin: &str, index: u64, part: &[u8]) -> Result<Vec<u8>, EntryError> {
        self.cipher.pack(&mut self.packer, origin, index, part)
    }

    /// Takes up the file again, after it was replaced by us.
    pub(super) fn look_again(&mut self, directory: &Path) -> io::Result<()> {
        self.file = held(directory, self.cipher.id())?;
        Ok(())
    }

    /// The name must still lead to the file, or what is sealed could never be read again.
    pub(super) fn check(&self) -> io::Result<()> {
        let length = self.file.file.metadata()?.len();
        self.file.check(Some(length))
    }
}

fn held(directory: &Path, id: KeyId) -> io::Result<Held> {
    let path = directory.join(path(id));
    let file = File::open(&path)?;
    Held::new(path, file)
}

/// Opens the entries of one log, with the data keys in its directory; each is read when it is first needed.
#[derive(Debug)]
pub(super) struct Ring<'k> {
    directory: std::path::PathBuf,
    origin: String,
    keys: &'k Keys,
    held: Mutex<BTreeMap<KeyId, Arc<Cipher>>>,
}

impl<'k> Ring<'k> {
    pub(super) fn new(directory: &Path, origin: &str, keys: &'k Keys) -> Self {
        let (directory, origin) = (directory.to_owned(), origin.to_owned());
        Self { directory, origin, keys, held: Mutex::default() }
    }

    /// The part that was sealed for this place of the log.
    pub(super) fn open(&self, index: u64, entry: &[u8]) -> Result<Vec<u8>, EntryError> {
        let (version, id) = entry::header(entry).ok_or(EntryError::Malformed)?;
        if version == DIRECT && id == self.keys.cipher.id() {
            return self.keys.cipher.open(&self.origin, index, entry);
        }
        self.cipher(id)?.open(&self.origin, index, entry)
    }

    fn cipher(&self, id: KeyId) -> Result<Arc<Cipher>, EntryError> {
        if let Some(cipher) = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(cipher));
        }
        let path = self.directory.join(path(id));
        let small = fs::metadata(&path).is_ok_and(|file| file.len() <= KEY_FILE_BYTES_MAX);
        let bytes = if small { fs::read(path).ok() } else { None };
        let file = bytes.and_then(|bytes| KeyFile::read(id, &bytes, &self.origin, self.keys).ok());
        let cipher = file.and_then(|file| file.cipher(&self.origin, self.keys).ok());
        let cipher = Arc::new(cipher.ok_or(EntryError::NoKey)?);
        self.hold(Arc::clone(&cipher));
        Ok(cipher)
    }

    fn hold(&self, cipher: Arc<Cipher>) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(cipher.id(), cipher);
    }
}

/// The key files of a trail, checked, and which entries each may have sealed.
#[derive(Debug, Default)]
pub(super) struct KeyFiles {
    pub(super) files: Vec<KeyFile>,
    /// By key: from its first entry to below the next key's.
    stretches: BTreeMap<KeyId, (u64, u64)>,
    /// The last key that was looked up.
    last: Option<(KeyId, (u64, u64))>,
}

impl KeyFiles {
    /// Reads every file, with what is wrong with some. The keys go into `ring`.
    pub(super) fn read(found: &[(KeyId, Vec<u8>)], ring: &Ring<'_>) -> (Self, Vec<(String, String)>) {
        let (mut read, mut wrong) = (Self::default(), Vec::new());
        for (id, bytes) in found {
            let file = KeyFile::read(*id, bytes, &ring.origin, ring.keys);
            match file.and_then(|file| Ok((file.cipher(&ring.origin, ring.keys)?, file))) {
                Ok((cipher, file)) => {
                    ring.hold(Arc::new(cipher));
                    read.files.push(file);
                }
                Err(what) => wrong.push((path(*id), what)),
            }
        }
        let mut firsts: Vec<u64> = read.files.iter().map(|file| file.first).collect();
        firsts.sort_unstable();
        for file in &read.files {
            let behind = firsts.partition_point(|first| *first <= file.first);
            let end = firsts.get(behind).copied().unwrap_or(u64::MAX);
            read.stretches.insert(file.id, (file.first, end));
        }
        (read, wrong)
    }

    /// The entries a key may have sealed: from the first to below the second.
    pub(super) fn stretch(&self, id: KeyId) -> Option<(u64, u64)> {
        self.stretches.get(&id).copied()
    }

    /// What is wrong with the key that an entry names. `configured`: the key that sealed entries of version 1 itself.
    pub(super) fn judge(&mut self, configured: KeyId, sequence: u64, entry: &[u8]) -> Option<&'static str> {
        let Some((version, id)) = entry::header(entry) else { return Some("is too short for an entry") };
        if version == DIRECT && id == configured {
            return None;
        }
        let stretch = match self.last.filter(|(last, _)| *last == id) {
            Some((_, stretch)) => stretch,
            None => match self.stretch(id) {
                Some(stretch) => stretch,
                None => return Some("was encrypted with a key whose file is missing or damaged"),
            },
        };
        self.last = Some((id, stretch));
        let is_its_own = (stretch.0..stretch.1).contains(&sequence);
        (!is_its_own).then_some("was encrypted with the key of another stretch of the trail")
    }

    /// The key for which all files are wrapped next: once they all are, that one opens the trail, and no more is written with
    /// the one before.
    pub(super) fn successor(&self) -> Option<KeyId> {
        let (first, rest) = self.files.split_first()?;
        let next = first.next()?;
        rest.iter().all(|file| file.next() == Some(next)).then_some(next)
    }
}
