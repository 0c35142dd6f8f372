//! Bringing a copy back from a bucket, as a directory that `audit verify` and `audit restore` take.
//!
//! Owns: which objects make a copy of which size. Must never: write over what is there; call a copy sound that does not verify.
//! Look next: `s3`, which made it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use chartgate::edge::journal::full_tiles;

use crate::pump::Trouble;
use crate::s3::{EdgeName, Open};

/// Writes the copy of `size` entries, or of the most there is a whole copy of, into `out`, which must be empty or not there; answers the size.
///
/// # Errors
/// A sentence.
pub(crate) async fn fetch(bucket: &Open<'_>, size: Option<u64>, out: &Path) -> Result<u64, String> {
    let name = find(bucket, size).await.map_err(|trouble| trouble.what)?;
    if fs::read_dir(out).is_ok_and(|mut there| there.next().is_some()) {
        return Err(format!("`{}` is not empty", out.display()));
    }
    let edge = format!("edge/{name}");
    let (mut files, mut open) = (Vec::new(), vec![edge.clone()]);
    while let Some(folder) = open.pop() {
        let (objects, folders) = bucket.list(&folder).await.map_err(|trouble| trouble.what)?;
        files.extend(objects);
        open.extend(folders);
    }
    let edge = files.iter().filter_map(|name| Some((name.clone(), name.strip_prefix(&edge)?.to_owned())));
    let tiles = full_tiles(0, name.published).map(|tile| (format!("log/{}", tile.path()), tile.path()));
    for (object, file) in edge.chain(tiles) {
        // What is missing the verification will name.
        if let Some(bytes) = bucket.get(&object).await.map_err(|trouble| trouble.what)? {
            let path = out.join(file.trim_start_matches('/'));
            write(&path, &bytes).map_err(|error| format!("`{}`: {error}", path.display()))?;
        }
    }
    Ok(name.size)
}

/// The whole copy of this size, or the largest. A forwarder that was ended while it wrote one leaves one without its checkpoint.
async fn find(bucket: &Open<'_>, size: Option<u64>) -> Result<EdgeName, Trouble> {
    let (_, folders) = bucket.list("edge").await?;
    let named = folders.iter().filter_map(|folder| EdgeName::parse(folder.strip_prefix("edge/")?));
    let mut names: Vec<EdgeName> = named.filter(|name| size.is_none_or(|size| name.size == size)).collect();
    names.sort_unstable();
    for name in names.iter().rev() {
        if bucket.get(&format!("edge/{name}/checkpoint")).await?.is_some() {
            return Ok(*name);
        }
    }
    Err(Trouble::receiver(match names.last() {
        Some(name) => format!("the copy of {} entries is not whole", name.size),
        None => "there is no such copy in the bucket".to_owned(),
    }))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}
