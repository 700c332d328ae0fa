//! A signature as ssh-keygen writes it (openssh-portable, PROTOCOL.sshsig and PROTOCOL.u2f): what came is compared with
//! this, so that one signature has one text. The library's own encoder puts the flags and the counter of an ECDSA
//! hardware key inside the string that they follow.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ssh_key::{Algorithm, PublicKey, SshSig};

/// Flags and counter behind a hardware key's signature.
pub const TRAILER: usize = 5;
/// Characters of a line.
const WIDTH: usize = 70;

/// The text; `None` for one that cannot be written.
pub fn armor(signature: &SshSig) -> Option<String> {
    let key = PublicKey::from(signature.public_key().clone()).to_bytes().ok()?;
    let mut blob = b"SSHSIG".to_vec();
    blob.extend(signature.version().to_be_bytes());
    string(&mut blob, &key)?;
    string(&mut blob, signature.namespace().as_bytes())?;
    string(&mut blob, signature.reserved())?;
    string(&mut blob, signature.hash_alg().as_str().as_bytes())?;
    string(&mut blob, &signed(signature)?)?;
    let text = BASE64_STANDARD.encode(blob);
    let mut out = "-----BEGIN SSH SIGNATURE-----\n".to_owned();
    let mut rest = &text[..];
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(WIDTH));
        out += line;
        out.push('\n');
        rest = after;
    }
    Some(out + "-----END SSH SIGNATURE-----\n")
}

/// The signature proper.
fn signed(signature: &SshSig) -> Option<Vec<u8>> {
    let algorithm = signature.algorithm();
    let bytes = signature.signature_bytes();
    let behind = if is_hardware(&algorithm) { TRAILER } else { 0 };
    let (inside, trailer) = bytes.split_at(bytes.len().checked_sub(behind)?);
    let mut out = Vec::new();
    string(&mut out, algorithm.as_str().as_bytes())?;
    string(&mut out, inside)?;
    out.extend(trailer);
    Some(out)
}

/// Whether a key of this kind lies in a device that can be touched.
pub fn is_hardware(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}

/// Four bytes of length, then the bytes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend(u32::try_from(bytes.len()).ok()?.to_be_bytes());
    out.extend(bytes);
    Some(())
}
