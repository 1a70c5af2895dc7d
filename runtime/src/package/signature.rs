//! Signatures: who made a package, and that it has not been changed since.
//!
//! Ed25519 over the header's hash, and BLAKE3 for the hashes below it. An app that opens only its own packages may not
//! need them: without the feature `signatures`, `unsigned.rs` replaces this file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ed25519_dalek::{Signature, Signer};
pub use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::cores::available_cores;

/// Signed together with the header's hash, so that the signature cannot be used for anything else.
const CONTEXT: &[u8] = b"skipstone package";
/// Bytes of a section that are hashed together.
const PART: usize = 1 << 20;

/// Checks that this build can read signed packages.
///
/// # Errors
/// The reason why it cannot.
pub(super) fn supported() -> Result<(), &'static str> {
    Ok(())
}

/// Public key and signature of the header's hash.
pub(super) fn sign(root: &[u8; 32], key: &SigningKey) -> ([u8; 32], [u8; 64]) {
    (key.verifying_key().to_bytes(), key.sign(&[CONTEXT, root].concat()).to_bytes())
}

/// Checks that the holder of the public key `signer` signed the header's hash.
///
/// # Errors
/// The reason for the failure.
pub(super) fn check(root: &[u8; 32], signer: &[u8; 32], signature: &[u8; 64]) -> Result<(), &'static str> {
    let holder = VerifyingKey::from_bytes(signer).map_err(|_| "its public key is invalid")?;
    let signed = holder.verify_strict(&[CONTEXT, root].concat(), &Signature::from_bytes(signature));
    signed.map_err(|_| "its signature is wrong")
}

/// A collision-resistant hash.
pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// The hash of the hashes of a section's parts. Cores take one part after another, so that a core that wakes up late
/// does not delay the others.
pub(super) fn section_hash(section: &[u8]) -> [u8; 32] {
    let parts: Vec<&[u8]> = section.chunks(PART).collect();
    let mut hashes = vec![[0; 32]; parts.len()];
    // Starting a thread takes as long as hashing a few hundred kilobytes.
    let threads = available_cores().min(parts.len() / 2).max(1);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(index) else { return done };
            done.push((index, hash(part)));
        }
    };
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        // A part that a helper did not hash keeps a hash of zeros, which no section has.
        helpers.into_iter().for_each(|helper| done.extend(helper.join().unwrap_or_default()));
        for (index, hash) in done {
            if let Some(place) = hashes.get_mut(index) {
                *place = hash;
            }
        }
    });
    hash(hashes.as_flattened())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{self as package_tests, code, host_package};
    use super::*;
    use crate::{Model, Options};

    /// Packages of every kind that this build writes.
    pub fn packages() -> Vec<Vec<u8>> {
        vec![host_package(None), host_package(Some(&SigningKey::from_bytes(&[7; 32])))]
    }

    #[test]
    fn signatures_are_verified() {
        let (ours, theirs) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let demand = Options::default().signer(ours.verifying_key().to_bytes());
        let open = |bytes: &[u8]| Model::from_bytes(bytes, &demand);
        let signed = host_package(Some(&ours));
        assert_eq!(
            open(&signed).unwrap().info().package.as_ref().unwrap().signer,
            Some(ours.verifying_key().to_bytes())
        );
        assert_eq!(code(open(&host_package(Some(&theirs)))), "package.signature");
        assert_eq!(code(open(&host_package(None))), "package.signature");
        // Another signer's content under our signature.
        let mut forged = host_package(Some(&theirs));
        forged[56..152].copy_from_slice(&signed[56..152]);
        forged[100] ^= 1;
        assert_eq!(code(open(&forged)), "package.signature");
        // Even without a required signer, a signature must be right.
        assert_eq!(code(package_tests::open(&forged)), "package.signature");
    }
}
