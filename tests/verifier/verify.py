"""A second verifier of the audit trail, written from docs/audit.md and the C2SP specifications alone.

It needs the log's verifier key (and those of witnesses), and no secret: it cannot read records, and does not have to.

    verify.py trail DIRECTORY --key VKEY [--witness VKEY]... [--against CHECKPOINT]
    verify.py proof FILE --key VKEY [--witness VKEY]... [--from CHECKPOINT]
    verify.py batch            one such command a line on standard input (JSON arrays), one answer a line

Prints what is wrong, one finding a line, and exits 1; prints `good` and exits 0 when nothing is.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import struct
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NOT_EVIDENCE = re.compile(r"lock|index|sqlite|\.db|\.tmp$|\.pid$")


class Bad(Exception):
    """Something is not as it was written."""


def demand(condition, what):
    if not condition:
        raise Bad(what)


def sha256(*pieces):
    return hashlib.sha256(b"".join(pieces)).digest()


def leaf_hash(entry):
    return sha256(b"\0", entry)


def node_hash(left, right):
    return sha256(b"\1", left, right)


def split(count):
    """The largest power of two below count."""
    return 1 << (count - 1).bit_length() - 1


def tree_hash(leaves):
    """MTH of RFC 6962 section 2.1, as it is defined there."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(tree_hash(leaves[:k]), tree_hash(leaves[k:]))


def unbase64(text):
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Bad("not base64") from error
    demand(base64.b64encode(raw).decode() == text, "base64 in another spelling")
    return raw


def number(text):
    demand(re.fullmatch(r"0|[1-9][0-9]{0,19}", text, re.ASCII), "not a number")
    return int(text)


class Key:
    """A verifier key: name+id+base64."""

    def __init__(self, name, kind, public):
        demand(name and not re.search(r"[\s+]", name), "not a key name")
        self.name, self.kind, self.public = name, kind, public
        self.id = sha256(name.encode(), b"\n", bytes([kind]), public)[:4]

    @classmethod
    def parse(cls, text):
        name, id_, blob = text.split("+", 2)
        raw = unbase64(blob)
        demand(len(raw) == 33 and raw[0] in (1, 4), "not an Ed25519 key")
        key = cls(name, raw[0], raw[1:])
        demand(key.id.hex() == id_, "key id is not its own")
        return key

    def check(self, signature, message):
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise Bad(f"wrong signature by {self.name}") from error


class Note:
    """A signed checkpoint."""

    def __init__(self, raw):
        try:
            whole = raw.decode()
        except UnicodeDecodeError as error:
            raise Bad("not UTF-8") from error
        demand(not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", whole), "control characters")
        text, blank, signatures = whole.rpartition("\n\n")
        demand(blank and signatures.endswith("\n"), "not a note")
        self.text = text + "\n"
        lines = self.text[:-1].split("\n")
        demand(len(lines) >= 3 and all(lines), "not a checkpoint")
        self.origin, self.size, self.root = lines[0], number(lines[1]), unbase64(lines[2])
        demand(len(self.root) == 32, "not a root")
        self.extensions = lines[3:]
        self.signatures = []
        for line in signatures[:-1].split("\n"):
            parts = line.split(" ")
            demand(len(parts) == 3 and parts[0] == "\u2014" and parts[1], "not a signature line")
            blob = unbase64(parts[2])
            demand(len(blob) >= 4, "not a signature")
            self.signatures.append((parts[1], blob[:4], blob[4:]))

    def by(self, key):
        """The checked signatures by key: for a witness, their times."""
        found = []
        for name, id_, signature in self.signatures:
            if (name, id_) != (key.name, key.id):
                continue
            if key.kind == 1:
                key.check(signature, self.text.encode())
                found.append(None)
            else:
                demand(len(signature) == 72, "not a cosignature")
                (seconds,) = struct.unpack(">Q", signature[:8])
                demand(seconds < 1 << 63, "impossible time")
                key.check(signature[8:], f"cosignature/v1\ntime {seconds}\n{self.text}".encode())
                found.append(seconds)
        demand(found, f"no signature by {key.name}")
        return found

    def only(self, *keys):
        demand([(name, id_) for name, id_, _ in self.signatures] == [(key.name, key.id) for key in keys],
               "other signatures than there should be")
        for key in keys:
            self.by(key)

    @property
    def state(self):
        return self.size, self.root


def own_note(raw, log):
    """A checkpoint as the log itself writes it: three lines, one signature."""
    note = Note(raw)
    demand(note.origin == log.name and not note.extensions, "checkpoint of another log")
    note.only(log)
    return note


def read_bundle(raw):
    entries, at = [], 0
    while at < len(raw):
        demand(at + 2 <= len(raw), "bundle ends inside a length")
        (length,) = struct.unpack_from(">H", raw, at)
        demand(at + 2 + length <= len(raw), "bundle ends inside an entry")
        entries.append(raw[at + 2:at + 2 + length])
        at += 2 + length
    return entries


def read_segment(raw, first, is_last):
    """Frames of one segment: (entries, note) each. An unfinished frame may stand at the end of the last segment."""
    at, frames = 0, []
    while at < len(raw):
        head = raw[at:at + 32]
        begin = b"cgf1" + struct.pack(">Q", first)
        demand(head[:12] == begin[:len(head)], f"byte {at}: not the next frame")
        torn = len(head) < 32
        if not torn:
            count, body, note = struct.unpack(">III", head[12:24])
            demand(sha256(head[:24])[:8] == head[24:], f"byte {at}: frame header was changed")
            end = at + 32 + body + note
            torn = end > len(raw)
        if torn:
            demand(is_last, f"byte {at}: ends inside a frame")
            break
        entries = read_bundle(raw[at + 32:at + 32 + body])
        demand(count > 0 and len(entries) == count, f"byte {at}: wrong number of entries")
        frames.append((entries, raw[at + 32 + body:end]))
        first += count
        at = end
    return frames, first


def tile_name(row, index, width=256):
    groups = f"{index % 1000:03}"
    index //= 1000
    while index:
        groups = f"x{index % 1000:03}/{groups}"
        index //= 1000
    return f"tile/{row}/{groups}" + ("" if width == 256 else f".p/{width}")


def read_key_file(raw, name, log):
    """The file of a wrapped data key: its id, the first entry it may seal, and the ids of the keys it is wrapped for."""
    kind, origin, id_, first, *wraps = statement(raw, log)
    demand(kind == "chartgate audit data key" and origin == log.name, "another statement, or of another log")
    demand(id_ == name, "the file of another data key")
    demand(len(wraps) in (1, 2), "wrapped for no key, or for too many")
    by = []
    for wrap in wraps:
        match = re.fullmatch(r"([0-9a-f]{16}) (\S+)", wrap, re.ASCII)
        demand(match and len(unbase64(match[2])) == 12 + 32 + 16, "not a wrapped key")
        by.append(match[1])
    return id_, number(first), set(by)


def statement(raw, log):
    """The lines of a text that the log signed."""
    try:
        whole = raw.decode()
    except UnicodeDecodeError as error:
        raise Bad("not UTF-8") from error
    text, blank, line = whole.partition("\n\n")
    lines = text.split("\n")
    demand(blank and len(lines) >= 3 and all(lines), "not a statement")
    parts = line[:-1].split(" ")
    demand(line.endswith("\n") and len(parts) == 3 and parts[:2] == ["\u2014", log.name], "not a signature line")
    blob = unbase64(parts[2])
    demand(blob[:4] == log.id, "no signature by the log")
    log.check(blob[4:], (text + "\n").encode())
    return lines


def read_tile_name(name):
    match = re.fullmatch(r"tile/(entries|[0-7])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([0-9]+))?", name, re.ASCII)
    if not match:
        return None
    index = int("".join(match[2].replace("x", "").split("/")))
    width = int(match[3]) if match[3] else 256
    tile = (match[1], index, width)
    return tile if 0 < width <= 256 and tile_name(*tile) == name else None


class Hashed(bytes):
    """The hash of an entry that is withheld."""


def leaf_of(entry):
    return bytes(entry) if isinstance(entry, Hashed) else leaf_hash(entry)


class Trail:
    """Every file of one audit directory."""

    def __init__(self, directory, log, witnesses, against):
        self.directory, self.log, self.witnesses = directory, log, witnesses
        self.findings = []
        self.marks = []
        self.files = {}
        for folder, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(folder, name)
                place = os.path.relpath(path, directory)
                regular = os.path.isfile(path) and not os.path.islink(path)
                if regular:
                    with open(path, "rb") as file:
                        self.files[place] = file.read()
                elif not NOT_EVIDENCE.search(name):
                    self.find(place, "not a regular file")
        self.against = against

    def find(self, place, what):
        self.findings.append(f"{place}: {what}")

    def attempt(self, place, work):
        try:
            return work()
        except Bad as bad:
            self.find(place, str(bad))
            return None

    def note(self, place):
        raw = self.files.pop(place, None)
        if raw is None:
            self.find(place, "is missing")
            return None
        note = self.attempt(place, lambda: own_note(raw, self.log))
        if note:
            self.marks.append((place, *note.state))
        return note

    def verify(self):
        checkpoint, published = self.note("checkpoint"), self.note("published")
        if self.against:
            note = self.attempt("kept elsewhere", lambda: own_note(self.against, self.log))
            if note:
                self.marks.append(("kept elsewhere", *note.state))
        self.read_witnessed()
        tiles = {tile: place for place in self.files if (tile := read_tile_name(place))}
        content = {tile: self.files.pop(place) for tile, place in tiles.items()}
        start, edge = self.read_segments()
        withheld = self.read_withheld(published)
        entries = self.read_entries(content, start, edge, withheld)
        if withheld and (self.pruned_at >= len(entries) or isinstance(entries[self.pruned_at], Hashed)):
            self.find("withheld", "the entry that records it is not there")
        self.check_keys(entries)
        for place in self.files:
            if not NOT_EVIDENCE.search(os.path.basename(place)):
                self.find(place, "does not belong to the trail")
        self.check_roots([leaf_of(entry) for entry in entries])
        size = published.size if published else 0
        if checkpoint and checkpoint.size < size:
            self.find("checkpoint", "is older than `published`")
        self.check_tiles(content, entries, size, withheld)
        if published and edge is not None and start > size // 256 * 256:
            self.find("segment", "is missing")
        return self.findings

    def read_witnessed(self):
        kept = set()
        for place in sorted(place for place in self.files if place.startswith("witness/")):
            match = re.fullmatch(r"witness/([0-9a-f]{64})", place)
            if not match:
                continue
            raw = self.files.pop(place)

            def check(raw=raw, public=bytes.fromhex(match[1])):
                note = Note(raw)
                demand(note.origin == self.log.name and not note.extensions, "checkpoint of another log")
                witness = Key(note.signatures[-1][0], 4, public)
                note.only(self.log, witness)
                return note, witness

            read = self.attempt(place, check)
            if read:
                self.marks.append((place, *read[0].state))
                kept.add((read[1].name, read[1].public))
        for witness in self.witnesses:
            if (witness.name, witness.public) not in kept:
                self.find("witness", f"{witness.name} has cosigned nothing")

    def read_withheld(self, published):
        """The bundles that may be missing. Which record says so cannot be read without the key."""
        raw = self.files.pop("withheld", None)

        def check():
            kind, origin, sequence, ranges = statement(raw, self.log)
            demand(kind == "chartgate audit withheld" and origin == self.log.name, "another statement")
            size = published.size if published else 0
            self.pruned_at = number(sequence)
            bundles, before = set(), -2
            for part in ranges.split(","):
                first, dash, last = part.partition("-")
                first, last = number(first), number(last if dash else first)
                demand(before + 1 < first <= last < size // 256 and (first < last) == bool(dash), "not ranges")
                bundles |= set(range(first, last + 1))
                before = last
            return bundles

        return (self.attempt("withheld", check) or set()) if raw is not None else set()

    def check_keys(self, entries):
        """Every key file is signed by the log, and every entry names a key that may have sealed it. Nothing is decrypted."""
        keys, outer = {}, []
        for place in sorted(place for place in self.files if re.fullmatch(r"keys/[0-9a-f]{16}", place)):
            raw = self.files.pop(place)
            read = self.attempt(place, lambda: read_key_file(raw, place[5:], self.log))
            if read:
                keys[read[0]] = read[1]
                outer.append(read[2])
        known = set.intersection(*outer) if outer else None
        if known == set():
            self.find("keys", "no one key unwraps them all")
        firsts = sorted(set(keys.values()))
        ends = {id_: next((other for other in firsts if other > first), 1 << 64) for id_, first in keys.items()}
        for sequence, entry in enumerate(entries):
            if isinstance(entry, Hashed):
                continue
            version, id_ = (entry[0], entry[1:9].hex()) if len(entry) > 9 else (0, "")
            if version not in (1, 2):
                self.find(f"entry {sequence}", "unknown format")
            elif id_ in keys:
                if not keys[id_] <= sequence < ends[id_]:
                    self.find(f"entry {sequence}", "encrypted with the key of another stretch")
            # Entries of version 1 were encrypted with the configured key, for which all others are wrapped.
            elif version == 2 or (known is not None and id_ not in known):
                self.find(f"entry {sequence}", "the file of its key is missing")

    def read_segments(self):
        places = sorted(place for place in self.files if re.fullmatch(r"segment/[0-9]{20}", place))
        raws = [(int(place[8:]), place, self.files.pop(place)) for place in places]
        if not raws:
            self.find("segment", "there is no segment")
            return 0, None
        start = end = raws[0][0]
        entries = []
        for at, (first, place, raw) in enumerate(raws):
            if first != end:
                self.find(place, f"entries from {end} to {first} are missing before it")
                break
            read = self.attempt(place, lambda: read_segment(raw, first, at + 1 == len(raws)))
            if read is None:
                break
            for frame, note in read[0]:
                entries += frame
                end += len(frame)
                signed = self.attempt(place, lambda: own_note(note, self.log))
                if signed:
                    self.marks.append((place, *signed.state))
                    if signed.size != end:
                        self.find(place, "checkpoint in a frame is for another size")
        return start, entries

    def read_entries(self, content, start, edge, withheld):
        """All entries in sequence: from full bundles, then from the segments; those in both must be equal."""
        entries = []
        index = 0
        while (bundle := content.get(("entries", index, 256))) is not None or index in withheld:
            if bundle is None:
                hashes = content.get(("0", index, 256), b"")
                if len(hashes) != 8192:
                    self.find(tile_name("entries", index), "is withheld without its hashes")
                    return entries
                entries += [Hashed(hashes[at:at + 32]) for at in range(0, 8192, 32)]
                index += 1
                continue
            read = self.attempt(tile_name("entries", index), lambda: read_bundle(bundle))
            if read is None or len(read) != 256:
                self.find(tile_name("entries", index), "does not hold 256 entries")
                return entries
            entries += read
            index += 1
        if edge is None:
            return entries
        if start > len(entries):
            self.find("tile/entries", f"entries from {len(entries)} to {start} are missing")
            return entries
        for sequence, entry in enumerate(edge, start):
            if sequence < len(entries):
                twin = entries[sequence]
                if leaf_of(twin) != leaf_hash(entry):
                    self.find(f"entry {sequence}", "differs between bundle and segment")
            else:
                entries.append(entry)
        return entries

    def check_roots(self, leaves):
        """Every signed root, by the definition of the tree over so many leaves."""
        known = {}
        for place, size, root in self.marks:
            if size > len(leaves):
                self.find(place, f"covers {size} entries, there are {len(leaves)}")
                continue
            if size not in known:
                known[size] = tree_hash(leaves[:size])
            if known[size] != root:
                self.find(place, f"root over the first {size} entries is another one")

    def check_tiles(self, content, entries, published, withheld):
        rows = {"entries": entries, "0": [leaf_of(entry) for entry in entries]}
        for level in range(1, 8):
            below = rows[str(level - 1)]
            rows[str(level)] = [tree_hash(below[at:at + 256]) for at in range(0, len(below) // 256 * 256, 256)]
        for (row, index, width), raw in content.items():
            cells = rows[row][index * 256:index * 256 + width]
            framed = [struct.pack(">H", len(entry)) + entry for entry in cells] if row == "entries" else cells
            if len(cells) != width or b"".join(framed) != raw:
                self.find(tile_name(row, index, width), "does not match the entries")
        for row in rows:
            count = published if row == "entries" else published // 256 ** int(row)
            needed = [(index, 256) for index in range(count // 256)]
            needed += [(count // 256, count % 256)] if count % 256 else []
            for index, width in needed:
                if (row, index, width) not in content and not (row == "entries" and width == 256 and index in withheld):
                    self.find(tile_name(row, index, width), "is missing")


def check_inclusion(path, index, leaf, size, root):
    """RFC 6962 section 2.1.1, by recursion as the path is defined there (not the loop of RFC 9162)."""

    def walk(index, size, path):
        if size == 1:
            demand(not path, "hashes left over")
            return leaf
        demand(path, "hashes missing")
        k = split(size)
        if index < k:
            return node_hash(walk(index, k, path[:-1]), path[-1])
        return node_hash(path[-1], walk(index - k, size - k, path[:-1]))

    demand(index < size, "no such entry")
    demand(walk(index, size, path) == root, "hashes do not lead to the signed root")


def check_consistency(path, old, old_root, size, root):
    """RFC 6962 section 2.1.2, by recursion: gives both roots."""

    def walk(old, size, path, whole):
        if old == size:
            if whole:
                demand(not path, "hashes left over")
                return old_root, old_root
            demand(len(path) == 1, "hashes left over or missing")
            return path[0], path[0]
        demand(path, "hashes missing")
        k = split(size)
        if old <= k:
            before, after = walk(old, k, path[:-1], whole)
            return before, node_hash(after, path[-1])
        before, after = walk(old - k, size - k, path[:-1], False)
        return node_hash(path[-1], before), node_hash(path[-1], after)

    demand(0 < old <= size, "no such state")
    demand(walk(old, size, path, True) == (old_root, root), "hashes do not lead to the signed roots")


def check_proofs(raw, log, witnesses, earlier):
    text = raw.decode()
    pieces = re.findall(r"(?:(?!\u2014 )[^\n]*\n)+(?:\u2014 [^\n]*\n)+", text)
    demand(pieces and "".join(pieces) == text, "not a file of proofs")
    for piece in pieces:
        head, _, rest = piece.partition("\n\n")
        lines = head.split("\n")
        note = Note(rest.encode())
        demand(note.origin == log.name, "checkpoint of another log")
        for key in [log, *witnesses]:
            note.by(key)
        if lines[0] == "c2sp.org/tlog-proof@v1":
            demand(lines[1].startswith("extra ") and lines[2].startswith("index "), "not a proof")
            extra, index = unbase64(lines[1][6:]), number(lines[2][6:])
            leaf = extra if len(extra) == 32 else leaf_hash(extra)
            check_inclusion([unbase64(line) for line in lines[3:]], index, leaf, note.size, note.root)
        else:
            demand(lines[0].startswith("old ") and earlier, "not a proof, or one without its earlier checkpoint")
            before = Note(earlier)
            before.by(log)
            demand((before.origin, before.size) == (note.origin, number(lines[0][4:])), "another earlier checkpoint")
            check_consistency([unbase64(line) for line in lines[1:]], *before.state, note.size, note.root)


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def run(arguments):
    """Findings of one command."""
    kind, place, *options = arguments
    keys = {"--key": [], "--witness": [], "--against": [], "--from": []}
    for name, value in zip(options[::2], options[1::2], strict=True):
        keys[name].append(value)
    log = Key.parse(keys["--key"][0])
    witnesses = [Key.parse(text) for text in keys["--witness"]]
    kept = [read_file(path) for path in keys["--against"] + keys["--from"]]
    try:
        if kind == "trail":
            return Trail(place, log, witnesses, kept[0] if kept else None).verify()
        check_proofs(read_file(place), log, witnesses, kept[0] if kept else None)
        return []
    except Bad as bad:
        return [str(bad)]


def main():
    if sys.argv[1:] == ["batch"]:
        for line in sys.stdin:
            print(json.dumps(run(json.loads(line))), flush=True)
        return 0
    findings = run(sys.argv[1:])
    print("\n".join(findings or ["good"]))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
