//! Replaces `signature.rs` in a library without the feature `signatures`: it opens only unsigned packages, and refuses
//! every signed one, since it could not detect changes.

/// A key to sign with: this build has none.
pub enum SigningKey {}

/// Whether signed packages can be read at all.
///
/// # Errors
/// Always.
pub(super) fn supported() -> Result<(), &'static str> {
    Err("it is signed, and this library was built without the feature `signatures`")
}

pub(super) fn sign(_root: &[u8; 32], key: &SigningKey) -> ([u8; 32], [u8; 64]) {
    match *key {}
}

pub(super) fn check(_root: &[u8; 32], _signer: &[u8; 32], _signature: &[u8; 64]) -> Result<(), &'static str> {
    supported()
}

/// An empty hash, which matches nothing.
pub(super) fn hash(_bytes: &[u8]) -> [u8; 32] {
    [0; 32]
}

pub(super) fn section_hash(_section: &[u8]) -> [u8; 32] {
    [0; 32]
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{code, host_package, open};
    use crate::{Model, Options};

    /// Packages of every kind that this build writes.
    pub fn packages() -> Vec<Vec<u8>> {
        vec![host_package(None)]
    }

    /// A build without signatures decides by the header alone, and trusts no signature.
    #[test]
    fn signed_packages_and_demands_are_refused() {
        let mut signed = host_package(None);
        signed[100] = 1;
        assert_eq!(code(open(&signed)), "package.signature");
        let demand = Options::default().signer([7; 32]);
        assert_eq!(code(Model::from_bytes(&host_package(None), &demand)), "package.signature");
    }
}
