//! Witnesses: others who sign a checkpoint once they have seen that it only continues the one before
//! (<https://c2sp.org/tlog-cosignature>), asked over HTTP (<https://c2sp.org/tlog-witness>). Pure.

use super::{
    note::{Checkpoint, NoteError},
    tree::Hash,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

/// The file with the last checkpoint that witnesses have signed, in the log's directory.
pub const WITNESSED: &str = "checkpoint.witnessed";
/// The algorithm's byte in encoded keys: a cosignature with a time, Ed25519.
const COSIGNATURE: u8 = 4;

/// The public key of a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessKey {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// A witness's signature of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// Whose.
    pub witness: String,
    /// When, in seconds since 1970, as the witness says.
    pub time: u64,
    /// The line of the signed note.
    pub line: String,
}

impl WitnessKey {
    /// Reads `name+id+base64`, as witnesses publish it.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let text = text.trim();
        let wrong = |why: &str| NoteError::Key(format!("no key of a witness: {why}: {text}"));
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("it is not name+id+key"));
        };
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| wrong("no base64"))?;
        let Some((COSIGNATURE, key)) = bytes.split_first().map(|(first, rest)| (*first, rest)) else {
            return Err(wrong("it is of another kind (a witness's begins with 4, encoded as BA…)"));
        };
        let key: &[u8; 32] = key.try_into().map_err(|_| wrong("wrong length"))?;
        let computed = id_of(name, key);
        if name.is_empty()
            || name.contains(char::is_whitespace)
            || id != format!("{:08x}", u32::from_be_bytes(computed))
        {
            return Err(wrong("the id is not that of name and key"));
        }
        let key = VerifyingKey::from_bytes(key).map_err(|_| wrong("no point of the curve"))?;
        Ok(Self { name: name.to_owned(), id: computed, key })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its signature among these lines of a note, checked against the text that is signed: `None` if there is none.
    pub fn cosignature(&self, text: &str, lines: &str) -> Option<Result<Cosignature, NoteError>> {
        lines.lines().find_map(|line| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let bytes = BASE64_STANDARD.decode(signature).ok()?;
            let (id, rest) = bytes.split_first_chunk::<4>()?;
            (name == self.name && *id == self.id).then(|| self.check(text, rest, line))
        })
    }

    fn check(&self, text: &str, signature: &[u8], line: &str) -> Result<Cosignature, NoteError> {
        let forged = || NoteError::Forged(format!("the witness {} has not signed this", self.name));
        let (time, signature) = signature.split_first_chunk::<8>().ok_or_else(forged)?;
        let time = u64::from_be_bytes(*time);
        let signature: &[u8; 64] = signature.try_into().map_err(|_| forged())?;
        let message = format!("cosignature/v1\ntime {time}\n{text}");
        let signature = Signature::from_bytes(signature);
        self.key.verify_strict(message.as_bytes(), &signature).map_err(|_| forged())?;
        Ok(Cosignature { witness: self.name.clone(), time, line: line.to_owned() })
    }
}

fn id_of(name: &str, key: &[u8; 32]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(name).chain_update([b'\n', COSIGNATURE]).chain_update(key);
    let digest = digest.finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// The text of a note that is signed, and the lines of its signatures.
pub fn split(note: &[u8]) -> Result<(&str, &str), NoteError> {
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    Ok((&note[..=at], &note[at + 2..]))
}

/// What is posted to `add-checkpoint`: the size that the witness saw last, the proof that the checkpoint continues
/// that, and the checkpoint.
pub fn request(old: u64, proof: &[Hash], note: &[u8]) -> Vec<u8> {
    let mut out = format!("old {old}\n").into_bytes();
    for hash in proof {
        out.extend(BASE64_STANDARD.encode(hash).into_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend(note);
    out
}

/// Those of `witnesses` that have signed this note; at least `wanted` of them must. The log's own signature is checked
/// elsewhere.
pub fn check(note: &[u8], witnesses: &[WitnessKey], wanted: usize) -> Result<Vec<Cosignature>, NoteError> {
    Checkpoint::unverified(note)?;
    let (text, lines) = split(note)?;
    let found: Vec<Cosignature> =
        witnesses.iter().filter_map(|witness| witness.cosignature(text, lines)).collect::<Result<_, _>>()?;
    if found.len() < wanted {
        let all: Vec<&str> = witnesses.iter().map(WitnessKey::name).collect();
        return Err(NoteError::TooFewWitnesses { found: found.len(), wanted, witnesses: all.join(", ") });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::note::SecretKey;
    use ed25519_dalek::{Signer, SigningKey};

    struct Witness(SigningKey);

    impl Witness {
        fn text(&self) -> String {
            let key = self.0.verifying_key().to_bytes();
            let id = u32::from_be_bytes(id_of("w.example", &key));
            format!("w.example+{id:08x}+{}", BASE64_STANDARD.encode([&[COSIGNATURE], &key[..]].concat()))
        }

        fn sign(&self, text: &str, time: u64) -> String {
            let signature = self.0.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
            let id = id_of("w.example", &self.0.verifying_key().to_bytes());
            let all = [&id[..], &time.to_be_bytes(), &signature.to_bytes()].concat();
            format!("\u{2014} w.example {}\n", BASE64_STANDARD.encode(all))
        }
    }

    fn note() -> Vec<u8> {
        let key = SecretKey::from_seed("log", &[1; 32]);
        Checkpoint { origin: "log/0001".to_owned(), size: 9, root: [3; 32] }.sign(&[&key]).expect("signs")
    }

    #[test]
    fn a_cosignature_counts_and_every_changed_one_does_not() {
        let witness = Witness(SigningKey::from_bytes(&[5; 32]));
        let key = WitnessKey::parse(&witness.text()).expect("a key");
        let text = split(&note()).expect("a note").0.to_owned();
        let line = witness.sign(&text, 77);
        let signed = [note(), line.clone().into_bytes()].concat();
        let found = check(&signed, std::slice::from_ref(&key), 1).expect("signed");
        assert_eq!((found[0].time, &*found[0].witness), (77, "w.example"));
        assert!(matches!(
            check(&note(), std::slice::from_ref(&key), 1),
            Err(NoteError::TooFewWitnesses { .. })
        ));
        assert_eq!(check(&note(), std::slice::from_ref(&key), 0), Ok(Vec::new()));
        // Another time than the one that was signed, another text, another key of the same name.
        let bytes = BASE64_STANDARD.decode(line.trim().rsplit(' ').next().expect("text")).expect("base64");
        for at in 4..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let line = format!("\u{2014} w.example {}\n", BASE64_STANDARD.encode(&other));
            assert!(key.cosignature(&text, &line).expect("its name and id").is_err(), "byte {at}");
        }
        let other = key.cosignature(&text.replace('9', "8"), &line).expect("its name and id");
        assert!(matches!(other, Err(NoteError::Forged(_))));
        let liar = Witness(SigningKey::from_bytes(&[6; 32])).sign(&text, 77);
        assert!(key.cosignature(&text, &liar).is_none(), "another key has another id");
    }

    #[test]
    fn keys_of_other_kinds_and_with_wrong_ids_are_refused() {
        let witness = Witness(SigningKey::from_bytes(&[5; 32])).text();
        for text in
            ["", "a+b", &witness.replace('w', "v"), &SecretKey::from_seed("w", &[1; 32]).public().text()]
        {
            assert!(matches!(WitnessKey::parse(text), Err(NoteError::Key(_))), "{text}");
        }
    }

    #[test]
    fn a_request_has_the_old_size_the_proof_an_empty_line_and_the_note() {
        let body = String::from_utf8(request(4, &[[0; 32], [1; 32]], b"note\n")).expect("text");
        let zeros = BASE64_STANDARD.encode([0; 32]);
        assert_eq!(body, format!("old 4\n{zeros}\n{}\n\nnote\n", BASE64_STANDARD.encode([1; 32])));
    }
}
