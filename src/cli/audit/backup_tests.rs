//! A copy is a whole trail, of one moment; what is not, is not put in place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::index_tests::{Place, long, plain, run};
use super::*;

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn backup_to(place: &Place, to: &Path) -> (u8, String, String) {
    run(|out, err| backup(&place.settings, to, false, out, err))
}

fn restore_from(place: &Place, from: &Path, only_verify: bool) -> (u8, String, String) {
    run(|out, err| restore(&place.settings, from, None, only_verify, false, (out, err)))
}

fn lines(place: &Place) -> usize {
    let all = run(|out, err| search_with(&place.settings, None, &Filter::default(), true, out, err));
    assert_eq!(all.0, GOOD, "{}", all.2);
    all.1.lines().count()
}

#[test]
fn a_copy_is_restored_and_goes_on() {
    let (place, _) = long();
    assert_eq!(place.index().0, GOOD);
    let copy = place.beside("copy");
    let (code, out, err) = backup_to(&place, &copy);
    assert_eq!((code, err.as_str()), (GOOD, ""), "{out}");
    assert!(out.contains("701 entries"), "{out}");
    assert!(!files(&copy).keys().any(|name| name.contains("index") || name.contains("lock")));
    // Written on, and lost.
    place.append(&[&[plain("later", "zaphod-1")]]);
    let (code, _, err) = restore_from(&place, &copy, false);
    assert!(code == PROBLEM && err.contains("exists"), "over a trail that is there: {err}");
    fs::remove_dir_all(&place.settings.directory).unwrap();
    assert_eq!(restore_from(&place, &copy, true).0, GOOD);
    assert!(!place.settings.directory.exists(), "only verified");
    assert_eq!(restore_from(&place, &copy, false).0, GOOD);
    assert_eq!(lines(&place), 701);
    place.append(&[&[plain("on", "zaphod-1")]]);
    assert_eq!(lines(&place), 702);
    assert_eq!(
        run(|out, err| verify(
            &place.settings,
            Request { decode: true, ..Request::default() },
            false,
            out,
            err
        ))
        .0,
        GOOD
    );
}

/// While the trail is written, and before its tiles follow, the copy is what `published` signs.
#[test]
fn a_copy_of_a_trail_that_is_written_is_whole() {
    let place = Place::new();
    let journal = journal::Journal::open(&place.settings).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for n in 0..8 {
        let records: Vec<_> = (0..60).map(|m| plain(&format!("r{n}-{m}"), "p1")).collect();
        let _receipt = runtime.block_on(journal.append(&records)).unwrap();
        let (code, out, err) = backup_to(&place, &place.beside(&format!("copy{n}")));
        assert_eq!(code, GOOD, "{out} {err}");
    }
    runtime.block_on(journal.close()).unwrap();
    let last = place.beside("last");
    assert!(backup_to(&place, &last).1.contains("481 entries"));
}

/// Any changed, missing or added file of a copy: it is named, and nothing is put in place.
#[test]
fn a_tampered_copy_is_not_restored() {
    let (place, _) = long();
    let copy = place.beside("copy");
    assert_eq!(backup_to(&place, &copy).0, GOOD);
    fs::remove_dir_all(&place.settings.directory).unwrap();
    for (name, bytes) in files(&copy) {
        let path = copy.join(&name);
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        if let Some(byte) = changed.get_mut(middle) {
            *byte ^= 1;
            fs::write(&path, changed).unwrap();
            assert_eq!(restore_from(&place, &copy, false).0, PROBLEM, "{name} changed");
            assert!(!place.settings.directory.exists());
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(restore_from(&place, &copy, false).0, PROBLEM, "{name} removed");
        assert!(!place.settings.directory.exists());
        fs::write(&path, bytes).unwrap();
    }
    fs::write(copy.join("more"), "x").unwrap();
    assert_eq!(restore_from(&place, &copy, true).0, PROBLEM, "a file added");
    fs::remove_file(copy.join("more")).unwrap();
    assert_eq!(restore_from(&place, &copy, false).0, GOOD);
}
