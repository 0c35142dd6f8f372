//! What a power cut leaves: the calls of a journal at work, replayed onto a disk that keeps only what was synced.
//!
//! Owns: the model. A file keeps the bytes it had when it was last synced; a folder keeps the names it had then, each
//! of the file that stood there. Must never: keep more than POSIX promises, but for the variants that say so.
//! Look next: `libc.c`, which writes the log of calls; `table.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One call that changed something, after it was done.
pub(crate) struct Call {
    what: u8,
    /// When it was done, in nanoseconds since 1970.
    pub(crate) at: u128,
    place: usize,
    path: PathBuf,
    other: PathBuf,
    bytes: Vec<u8>,
}

/// Reads a log of calls.
pub(crate) fn calls(log: &Path) -> Vec<Call> {
    let log = fs::read(log).unwrap();
    let (mut rest, mut calls) = (log.as_slice(), Vec::new());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let fields: Vec<&str> = head.split('\t').collect();
        let [what, at, place, length, path, other] = fields.as_slice() else { panic!("{head}") };
        let length: usize = length.parse().unwrap();
        let Some(bytes) = rest.get(end + 1..end + 1 + length) else { break };
        calls.push(Call {
            what: what.as_bytes()[0],
            at: at.parse().unwrap(),
            place: place.parse().unwrap(),
            path: path.into(),
            other: other.into(),
            bytes: bytes.to_vec(),
        });
        rest = &rest[end + 1 + length..];
    }
    calls
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    kept: Vec<u8>,
}

/// How much of what was not synced is there after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Luck {
    /// Nothing.
    None,
    /// Of each file that grew, half of what it grew by.
    HalfTheBytes,
    /// Every name, and no bytes.
    EveryName,
}

/// The disk below one folder.
pub(crate) struct Disk {
    root: PathBuf,
    contents: Vec<Content>,
    now: BTreeMap<PathBuf, Node>,
    kept: BTreeMap<PathBuf, Node>,
}

impl Disk {
    /// As it stands, all of it synced.
    pub(crate) fn of(root: &Path) -> Self {
        let mut disk =
            Self { root: root.to_owned(), contents: Vec::new(), now: BTreeMap::new(), kept: BTreeMap::new() };
        let mut open = vec![root.to_owned()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                disk.now.insert(path, Node::Folder);
            } else if !path.to_string_lossy().contains("sqlite") {
                let bytes = fs::read(&path).unwrap();
                let file = disk.file(Content { now: bytes.clone(), kept: bytes });
                disk.now.insert(path, file);
            }
        }
        disk.kept = disk.now.clone();
        disk
    }

    fn file(&mut self, content: Content) -> Node {
        self.contents.push(content);
        Node::File(self.contents.len() - 1)
    }

    fn content(&mut self, path: &Path) -> Option<&mut Content> {
        let Some(Node::File(number)) = self.now.get(path) else { return None };
        self.contents.get_mut(*number)
    }

    pub(crate) fn apply(&mut self, call: &Call) {
        match call.what {
            b'C' if self.now.contains_key(&call.path) => {
                if call.place == 1 {
                    self.content(&call.path).unwrap().now.clear();
                }
            }
            b'C' => {
                let file = self.file(Content::default());
                self.now.insert(call.path.clone(), file);
            }
            b'D' => drop(self.now.insert(call.path.clone(), Node::Folder)),
            b'U' | b'X' => drop(self.now.remove(&call.path)),
            b'R' => {
                let node = self.now.remove(&call.other).unwrap();
                self.now.insert(call.path.clone(), node);
            }
            b'E' => {
                let (node, other) = (self.now[&call.path], self.now[&call.other]);
                self.now.insert(call.path.clone(), other);
                self.now.insert(call.other.clone(), node);
            }
            b'T' => {
                let length = call.place;
                self.content(&call.path).unwrap().now.resize(length, 0);
            }
            b'W' => {
                // A file that lost its name is nobody's any more.
                let Some(content) = self.content(&call.path) else { return };
                let end = call.place + call.bytes.len();
                if content.now.len() < end {
                    content.now.resize(end, 0);
                }
                content.now[call.place..end].copy_from_slice(&call.bytes);
            }
            b'S' => self.sync(&call.path),
            other => panic!("{other}"),
        }
    }

    fn sync(&mut self, path: &Path) {
        if self.now.get(path) == Some(&Node::Folder) {
            let is_in = |name: &PathBuf| name.parent() == Some(path);
            self.kept.retain(|name, _| !is_in(name));
            self.kept
                .extend(self.now.iter().filter(|(name, _)| is_in(name)).map(|(n, node)| (n.clone(), *node)));
        } else if let Some(content) = self.content(path) {
            content.kept.clone_from(&content.now);
        }
    }

    /// What is there when the power comes back.
    pub(crate) fn left(&self, luck: Luck) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let names = if luck == Luck::EveryName { &self.now } else { &self.kept };
        let mut left: BTreeMap<PathBuf, Option<Vec<u8>>> = BTreeMap::new();
        for (path, node) in names {
            let is_there =
                path == &self.root || path.parent().is_some_and(|parent| left.contains_key(parent));
            if !is_there {
                continue;
            }
            let bytes = match node {
                Node::Folder => None,
                Node::File(number) => Some(self.contents[*number].after(luck)),
            };
            left.insert(path.clone(), bytes);
        }
        left
    }

    /// Puts what is there below another folder, which is made anew.
    pub(crate) fn restore(&self, left: &BTreeMap<PathBuf, Option<Vec<u8>>>, to: &Path) {
        if to.exists() {
            fs::remove_dir_all(to).unwrap();
        }
        for (path, bytes) in left {
            let path = to.join(path.strip_prefix(&self.root).unwrap());
            match bytes {
                None => fs::create_dir(path).unwrap(),
                Some(bytes) => fs::write(path, bytes).unwrap(),
            }
        }
    }
}

impl Content {
    fn after(&self, luck: Luck) -> Vec<u8> {
        if luck == Luck::HalfTheBytes && self.now.starts_with(&self.kept) {
            return self.now[..self.kept.len().midpoint(self.now.len())].to_vec();
        }
        self.kept.clone()
    }
}
