//! The container: sections of bytes under one header, with every byte checked.
//!
//! ```text
//! offset  bytes
//!      0      8  magic, "SKIPSTON"
//!      8      4  version of the format
//!     12      4  number of sections
//!     16      8  length of the file
//!     24     32  hash of bytes 0..24 and of the table
//!     56     32  Ed25519 public key of the signer, or zeros
//!     88     64  signature of "skipstone package" and the hash at 24, or zeros
//!    152     56  for each section, the table: kind (4), zeros (4), offset (8), length (8), hash (32)
//!                the sections in the order of the table, each at a multiple of 64, with zeros between
//! ```
//!
//! Integers are little-endian. The header's hash covers the sections' hashes, and the signature covers the header's
//! hash: every change of a file is detected, and nothing is used before all of it is checked.
//!
//! A signed package is hashed with BLAKE3, section by section in parts of 1 MiB, so that all cores of a phone can check
//! a large one. Without a signature, anybody who changes a file can also correct its hashes, so they only have to
//! detect accidental damage: they are XXH3-128, which one core computes at memory speed, padded with zeros.

use std::fmt;

use twox_hash::XxHash3_128;

use super::signature::{self, SigningKey};
use crate::bytes::Bytes;
use crate::error::{Error, Fault, PackageFault, Result};
use crate::reserve;

/// First bytes of every package.
pub(super) const MAGIC: &[u8; 8] = b"SKIPSTON";
/// Version of the format: of the container, the content of its sections, and the list of operators.
const VERSION: u32 = 4;
/// Alignment of sections: a cache line, and the widest vector.
pub(super) const ALIGNMENT: usize = 64;
/// Bytes before the table.
const HEADER: usize = 152;
/// Bytes of an entry of the table.
const ENTRY: usize = 56;
/// Most sections that a reader accepts.
const MAX_SECTIONS: usize = 64;
/// Replaces the key and the signature of an unsigned package.
const UNSIGNED: ([u8; 32], [u8; 64]) = ([0; 32], [0; 64]);

/// The content of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The graph.
    Graph = 1,
    /// Constants and packed weights.
    Weights = 2,
    /// Information on the model.
    Info = 3,
    /// Inputs that sessions hold, if there are any.
    Variables = 4,
    /// Lengths of outputs that only a run knows, if there are any.
    Lengths = 5,
    /// Graphs for further shapes of the inputs, if there are any.
    Further = 6,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Graph => "graph",
            Self::Weights => "weights",
            Self::Info => "info",
            Self::Variables => "variables",
            Self::Lengths => "lengths",
            Self::Further => "further graphs",
        })
    }
}

impl Kind {
    fn new(kind: u32) -> Option<Self> {
        [Self::Graph, Self::Weights, Self::Info, Self::Variables, Self::Lengths, Self::Further]
            .into_iter()
            .find(|k| *k as u32 == kind)
    }
}

/// The offset of the first of so many sections.
pub(super) fn first_offset(sections: usize) -> usize {
    (HEADER + sections * ENTRY).next_multiple_of(ALIGNMENT)
}

/// Writes a container of these sections, signed if a key is given.
///
/// # Errors
/// Not enough memory.
pub(super) fn write(sections: &[(Kind, &[u8])], key: Option<&SigningKey>) -> Result<Vec<u8>> {
    let hash = Hash::of(key.is_some());
    let mut table = Vec::with_capacity(sections.len() * ENTRY);
    let mut end = HEADER + sections.len() * ENTRY;
    for (kind, bytes) in sections {
        let offset = end.next_multiple_of(ALIGNMENT);
        table.extend((*kind as u32).to_le_bytes());
        table.extend([0; 4]);
        table.extend((offset as u64).to_le_bytes());
        table.extend((bytes.len() as u64).to_le_bytes());
        table.extend(hash.section(bytes));
        end = offset + bytes.len();
    }
    let mut file = reserve::empty(end)?;
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((sections.len() as u32).to_le_bytes());
    file.extend((end as u64).to_le_bytes());
    let root = hash.header(&file, &table);
    file.extend(root);
    let (signer, signature) = key.map_or(UNSIGNED, |key| signature::sign(&root, key));
    file.extend(signer);
    file.extend(signature);
    file.extend(table);
    for (_, bytes) in sections {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(*bytes);
    }
    Ok(file)
}

/// A completely checked container.
pub(super) struct Container {
    sections: Vec<(Kind, Bytes)>,
    /// Its signer.
    pub signer: Option<[u8; 32]>,
}

impl Container {
    /// Checks every byte of `file`, and that `key` signed it, if a key is given.
    ///
    /// # Errors
    /// `package.magic`, `package.version`, `package.truncated`, `package.format`, `package.hash` and
    /// `package.signature`, with the reason.
    pub fn read(file: &Bytes, key: Option<&[u8; 32]>) -> Result<Self> {
        let mut header = Reader(file);
        if header.take(MAGIC.len()).is_ok_and(|magic| magic != MAGIC) {
            return Err(refused(PackageFault::Magic, "it does not begin like a package"));
        }
        let (version, count, length) = (header.u32()?, header.u32()? as usize, header.u64()?);
        if version != VERSION {
            let whose = if version > VERSION { "a newer Skipstone" } else { "an older Skipstone" };
            let message = format!("its format is version {version}, of {whose}; this one reads version {VERSION}");
            return Err(refused(PackageFault::Version, &message));
        }
        if length != file.len() as u64 {
            let (code, what) = if length > file.len() as u64 {
                (PackageFault::Truncated, "it is truncated")
            } else {
                (PackageFault::Format, "it has extra bytes at the end")
            };
            return Err(refused(code, &format!("{what}: {} bytes of {length}", file.len())));
        }
        if count > MAX_SECTIONS {
            return Err(refused(
                PackageFault::Format,
                &format!("{count} sections, at most {MAX_SECTIONS} are allowed"),
            ));
        }
        let (stored_root, signer, signature) = (header.array()?, header.array()?, header.array()?);
        let table = header.take(count * ENTRY)?;
        let start = file.get(..24).unwrap_or_default();
        let signed = (signer, signature) != UNSIGNED;
        if signed {
            signature::supported().map_err(|reason| refused(PackageFault::Signature, reason))?;
        }
        let hash = Hash::of(signed);
        if hash.header(start, table) != stored_root {
            return Err(refused(PackageFault::Hash, "its header is damaged"));
        }
        let signer = check_signature(&stored_root, signer, &signature, key)?;
        Ok(Self { sections: sections(file, table, hash)?, signer })
    }

    /// The section with this kind.
    ///
    /// # Errors
    /// `package.format` if there is none.
    pub fn section(&self, kind: Kind) -> Result<&Bytes> {
        self.optional(kind).ok_or_else(|| refused(PackageFault::Format, &format!("the section {kind} is missing")))
    }

    /// The section with this kind, if there is one.
    pub fn optional(&self, kind: Kind) -> Option<&Bytes> {
        self.sections.iter().find(|(k, _)| *k == kind).map(|(_, bytes)| bytes)
    }
}

/// The signer of the hash, after checking the signature.
fn check_signature(
    root: &[u8; 32],
    signer: [u8; 32],
    signature: &[u8; 64],
    key: Option<&[u8; 32]>,
) -> Result<Option<[u8; 32]>> {
    let refused = |reason: &str| refused(PackageFault::Signature, reason);
    if (signer, *signature) == UNSIGNED {
        return match key {
            Some(_) => Err(refused("it is not signed")),
            None => Ok(None),
        };
    }
    if key.is_some_and(|key| *key != signer) {
        return Err(refused("it was signed with another key"));
    }
    signature::check(root, &signer, signature).map_err(refused).map(|()| Some(signer))
}

/// The sections of a table, each at the end of the previous one, after checking their hashes and the zeros between.
fn sections(file: &Bytes, table: &[u8], hash: Hash) -> Result<Vec<(Kind, Bytes)>> {
    let damaged = |what: String| refused(PackageFault::Hash, &what);
    let odd = || refused(PackageFault::Format, "its table of sections is invalid");
    let mut end = HEADER + table.len();
    let mut sections: Vec<(Kind, Bytes)> = Vec::new();
    for entry in table.chunks_exact(ENTRY) {
        let mut entry = Reader(entry);
        let (kind, zeros) = (entry.u32()?, entry.u32()?);
        let (offset, length, stored) = (entry.usize()?, entry.usize()?, entry.array()?);
        let kind = Kind::new(kind).ok_or_else(odd)?;
        if zeros != 0 || offset != end.next_multiple_of(ALIGNMENT) || sections.iter().any(|(k, _)| *k == kind) {
            return Err(odd());
        }
        if file.get(end..offset).is_none_or(|between| between.iter().any(|&byte| byte != 0)) {
            return Err(damaged(format!("there should be zeros before the section {kind}")));
        }
        end = offset.checked_add(length).ok_or_else(odd)?;
        let bytes = file.part(offset..end).ok_or_else(odd)?;
        if hash.section(&bytes) != stored {
            return Err(damaged(format!("the section {kind} is damaged")));
        }
        sections.push((kind, bytes));
    }
    if end != file.len() {
        return Err(odd());
    }
    Ok(sections)
}

/// The kind of hash.
#[derive(Clone, Copy)]
enum Hash {
    /// Against accidental damage.
    Xxh3,
    /// Against tampering.
    Blake3,
}

impl Hash {
    /// The kind for a package that is signed, or not.
    fn of(signed: bool) -> Self {
        if signed { Self::Blake3 } else { Self::Xxh3 }
    }

    fn bytes(self, bytes: &[u8]) -> [u8; 32] {
        match self {
            Self::Xxh3 => {
                let mut hash = [0; 32];
                hash[..16].copy_from_slice(&XxHash3_128::oneshot(bytes).to_le_bytes());
                hash
            }
            Self::Blake3 => signature::hash(bytes),
        }
    }

    /// The hash in the header, over its start and the table.
    fn header(self, start: &[u8], table: &[u8]) -> [u8; 32] {
        self.bytes(&[start, table].concat())
    }

    fn section(self, section: &[u8]) -> [u8; 32] {
        match self {
            Self::Xxh3 => self.bytes(section),
            Self::Blake3 => signature::section_hash(section),
        }
    }
}

pub(super) fn refused(fault: PackageFault, reason: &str) -> Error {
    Error::Invalid { fault: Fault::Package(fault), message: format!("the package is refused: {reason}") }
}

/// Reads integers from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or_else(|| refused(PackageFault::Truncated, "it is truncated"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| refused(PackageFault::Truncated, "it is truncated"))
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn usize(&mut self) -> Result<usize> {
        usize::try_from(self.u64()?).map_err(|_| refused(PackageFault::Format, "it is too large for this device"))
    }
}
