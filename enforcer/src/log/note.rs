//! Checkpoints (<https://c2sp.org/tlog-checkpoint>) as signed notes (<https://c2sp.org/signed-note>) with
//! Ed25519, and the note with which a key hands over to the next one. Pure.

use super::tree::Hash;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::SigningKey;
use signed_note::{Note, Signer, StandardSigner, StandardVerifier, Verifier, VerifierList, key_id};

/// The algorithm's byte in encoded keys: Ed25519.
const ED25519: u8 = 1;
/// First line of the note with which a key hands over.
const HANDOVER: &str = "enforcer audit key handover v1";

/// Why a note or a key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a note key.
    #[error("not an Ed25519 key in the form of signed notes: {0}")]
    Key(String),
    /// Not a signed note.
    #[error("not a signed note")]
    Malformed,
    /// Not a checkpoint.
    #[error("the note is no checkpoint")]
    NotCheckpoint,
    /// No signature by a known key.
    #[error("not signed by any of the keys {0}")]
    Unsigned(String),
    /// Fewer witnesses have signed it than must.
    #[error("signed by {found} of the witnesses {witnesses}, but {wanted} are asked for")]
    TooFewWitnesses {
        /// How many have.
        found: usize,
        /// How many must.
        wanted: usize,
        /// Their names.
        witnesses: String,
    },
    /// A signature that claims a known key and is not by it.
    #[error("a signature is wrong: {0}")]
    Forged(String),
}

/// A public key under the name of a host's logs. The log `name/0001` is signed by the same key under the
/// log's own name, since C2SP asks for a key name that is the log's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: [u8; 32],
}

impl PublicKey {
    /// Reads `name+id+base64`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let text = text.trim();
        let wrong = |why: &str| NoteError::Key(format!("{why}: {text}"));
        // Checks the form and the id.
        StandardVerifier::new(text).map_err(|e| wrong(&e.to_string()))?;
        let mut parts = text.splitn(3, '+');
        let (name, key) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| wrong("no base64"))?;
        let key = bytes.get(1..).and_then(|b| b.try_into().ok()).ok_or_else(|| wrong("wrong length"))?;
        Ok(Self { name: name.to_owned(), key })
    }

    /// `name+id+base64`.
    pub fn text(&self) -> String {
        let key = [&[ED25519], &self.key[..]].concat();
        format!("{}+{:08x}+{}", self.name, key_id(&self.name, &key), BASE64_STANDARD.encode(&key))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether both are the same key, under whatever name.
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// The key as the log `origin` uses it, if that is one of this name's logs.
    pub fn for_origin(&self, origin: &str) -> Option<Self> {
        let rest = origin.strip_prefix(self.name.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| Self { name: origin.to_owned(), key: self.key })
    }
}

/// A secret key.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// The key from 32 random bytes.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Self {
        Self { name: name.to_owned(), key: SigningKey::from_bytes(seed) }
    }

    /// Reads `PRIVATE+KEY+name+id+base64`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        // The text itself must not appear in errors.
        let wrong = |why: String| NoteError::Key(why);
        let text = text.trim();
        StandardSigner::new(text).map_err(|e| wrong(e.to_string()))?;
        let mut parts = text.splitn(5, '+').skip(2);
        let (name, key) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
        let bytes = BASE64_STANDARD.decode(key).map_err(|_| wrong("no base64".to_owned()))?;
        let seed = bytes.get(1..).and_then(|b| b.try_into().ok());
        Ok(Self::from_seed(name, &seed.ok_or_else(|| wrong("wrong length".to_owned()))?))
    }

    /// `PRIVATE+KEY+name+id+base64`.
    pub fn text(&self) -> String {
        let public = [&[ED25519], &self.key.verifying_key().to_bytes()[..]].concat();
        let secret = [&[ED25519], &self.key.to_bytes()[..]].concat();
        let id = key_id(&self.name, &public);
        format!("PRIVATE+KEY+{}+{id:08x}+{}", self.name, BASE64_STANDARD.encode(secret))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key().to_bytes() }
    }

    fn signer(&self, name: &str) -> Result<StandardSigner, NoteError> {
        let renamed = Self { name: name.to_owned(), key: self.key.clone() };
        StandardSigner::new(&renamed.text()).map_err(|e| NoteError::Key(e.to_string()))
    }
}

/// What a log is at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// Records.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64_STANDARD.encode(self.root))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let root = BASE64_STANDARD.decode(root).ok()?.try_into().ok()?;
        let checkpoint = Self { origin: origin.to_owned(), size: size.parse().ok()?, root };
        // This log writes no extension lines; what follows would be one.
        (checkpoint.text() == text && !origin.is_empty()).then_some(checkpoint)
    }

    /// The checkpoint, signed by all of these keys under the log's name.
    pub fn sign(&self, keys: &[&SecretKey]) -> Result<Vec<u8>, NoteError> {
        sign(&self.text(), keys, &self.origin)
    }

    /// Reads a checkpoint that at least one of `keys` has signed. Signatures by others (witnesses) are let
    /// be; a wrong one by a known key is an error.
    pub fn open(bytes: &[u8], keys: &[PublicKey]) -> Result<Self, NoteError> {
        let checkpoint = Self::unverified(bytes)?;
        verify(bytes, keys, &checkpoint.origin, 1)?;
        Ok(checkpoint)
    }

    /// Reads a checkpoint without looking at its signatures.
    pub fn unverified(bytes: &[u8]) -> Result<Self, NoteError> {
        let note = Note::from_bytes(bytes).map_err(|_| NoteError::Malformed)?;
        if note.to_bytes() != bytes {
            return Err(NoteError::Malformed);
        }
        let text = std::str::from_utf8(note.text()).map_err(|_| NoteError::Malformed)?;
        Self::parse(text).ok_or(NoteError::NotCheckpoint)
    }
}

fn sign(text: &str, keys: &[&SecretKey], name: &str) -> Result<Vec<u8>, NoteError> {
    let signers = keys.iter().map(|key| key.signer(name)).collect::<Result<Vec<_>, _>>()?;
    let signers: Vec<&dyn Signer> = signers.iter().map(|signer| signer as &dyn Signer).collect();
    let mut note = Note::new(text.as_bytes(), &[]).map_err(|_| NoteError::Malformed)?;
    note.add_sigs(&signers).map_err(|e| NoteError::Key(e.to_string()))?;
    Ok(note.to_bytes())
}

/// Checks that at least `wanted` of the keys have signed, under the name `origin`.
fn verify(bytes: &[u8], keys: &[PublicKey], origin: &str, wanted: usize) -> Result<(), NoteError> {
    let note = Note::from_bytes(bytes).map_err(|_| NoteError::Malformed)?;
    let named: Vec<PublicKey> = keys.iter().filter_map(|key| key.for_origin(origin)).collect();
    let shown = || keys.iter().map(PublicKey::text).collect::<Vec<_>>().join(", ");
    let mut verifiers: Vec<Box<dyn Verifier>> = Vec::new();
    for (at, key) in named.iter().enumerate() {
        // The library takes a key that is there twice for an ambiguity.
        if !named[..at].contains(key) {
            let verifier = StandardVerifier::new(&key.text()).map_err(|e| NoteError::Key(e.to_string()))?;
            verifiers.push(Box::new(verifier));
        }
    }
    match note.verify(&VerifierList::new(verifiers)) {
        Ok((verified, _)) if verified.len() >= wanted => Ok(()),
        Ok(_) | Err(signed_note::NoteError::UnverifiedNote) => Err(NoteError::Unsigned(shown())),
        Err(error) => Err(NoteError::Forged(error.to_string())),
    }
}

/// The note with which `old` says that `new` signs the logs from now on, signed by both.
pub fn hand_over(old: &SecretKey, new: &SecretKey) -> Result<String, NoteError> {
    let text = format!("{HANDOVER}\n{}\n{}\n", old.public().text(), new.public().text());
    let note = sign(&text, &[old, new], &old.name)?;
    String::from_utf8(note).map_err(|_| NoteError::Malformed)
}

/// The key that a note hands over to, if one of `keys` and the new key itself have signed it.
pub fn handed_over(note: &str, keys: &[PublicKey]) -> Result<PublicKey, NoteError> {
    let text = note.split_once("\n\n").ok_or(NoteError::Malformed)?.0;
    let lines: Vec<&str> = text.split('\n').collect();
    let [HANDOVER, old, new] = lines[..] else { return Err(NoteError::Malformed) };
    let (old, new) = (PublicKey::parse(old)?, PublicKey::parse(new)?);
    if !keys.contains(&old) {
        return Err(NoteError::Unsigned(keys.iter().map(PublicKey::text).collect::<Vec<_>>().join(", ")));
    }
    let new_under_old_name = PublicKey { name: old.name.clone(), key: new.key };
    let origin = old.name.clone();
    verify(note.as_bytes(), &[old, new_under_old_name], &origin, 2)?;
    Ok(new)
}

/// Keys that are trusted, and those that they handed over to.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// All of them, those that were given first.
    pub keys: Vec<PublicKey>,
    given: usize,
    /// Notes by keys that are not trusted yet. Where old records were removed, an early handover stands after
    /// later ones.
    pending: Vec<String>,
}

impl Trusted {
    /// These to begin with.
    pub fn new(keys: &[PublicKey]) -> Self {
        Self { keys: keys.to_vec(), given: keys.len(), pending: Vec::new() }
    }

    /// Trusts the key that this record hands over to, if it is such a record and a trusted key has signed it.
    pub fn note(&mut self, record: &serde_json::Map<String, serde_json::Value>) {
        if record.get("kind").is_none_or(|kind| kind != "key-handover") {
            return;
        }
        self.pending.extend(record.get("note").and_then(|note| note.as_str()).map(str::to_owned));
        while let Some((at, key)) = self.next() {
            self.pending.remove(at);
            if !self.keys.contains(&key) {
                self.keys.push(key);
            }
        }
    }

    fn next(&self) -> Option<(usize, PublicKey)> {
        let of = |(at, note): (usize, &String)| Some((at, handed_over(note, &self.keys).ok()?));
        self.pending.iter().enumerate().find_map(of)
    }

    /// Those that were handed over to, in order.
    pub fn handovers(&self) -> &[PublicKey] {
        &self.keys[self.given..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed("enforcer-audit/host", &[seed; 32])
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "enforcer-audit/host/0001".to_owned(), size: 42, root: [9; 32] }
    }

    #[test]
    fn keys_survive_their_text() {
        let secret = key(1);
        let again = SecretKey::parse(&secret.text()).expect("parses");
        assert_eq!(again.public(), secret.public());
        assert_eq!(PublicKey::parse(&secret.public().text()).expect("parses"), secret.public());
        assert!(PublicKey::parse("a+00000000+AQ==").is_err());
        assert!(SecretKey::parse(&secret.text().replace("host", "other")).is_err());
    }

    #[test]
    fn a_checkpoint_is_read_by_whoever_knows_a_signer() {
        let bytes = checkpoint().sign(&[&key(1), &key(2)]).expect("signs");
        let text = String::from_utf8(bytes.clone()).expect("text");
        assert!(text.starts_with("enforcer-audit/host/0001\n42\nCQkJ"), "{text}");
        for known in [vec![key(1).public()], vec![key(2).public()], vec![key(3).public(), key(1).public()]] {
            assert_eq!(Checkpoint::open(&bytes, &known).expect("opens"), checkpoint());
        }
        assert!(matches!(Checkpoint::open(&bytes, &[key(3).public()]), Err(NoteError::Unsigned(_))));
        let other_name = SecretKey::from_seed("enforcer-audit/hos", &[1; 32]).public();
        assert!(matches!(Checkpoint::open(&bytes, &[other_name]), Err(NoteError::Unsigned(_))));
    }

    #[test]
    fn every_changed_byte_of_a_checkpoint_is_found() {
        let bytes = checkpoint().sign(&[&key(1)]).expect("signs");
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert!(Checkpoint::open(&other, &[key(1).public()]).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn handovers_are_followed_in_whatever_order_they_stand() {
        let record = |old: u8, new: u8| {
            let note = hand_over(&key(old), &key(new)).expect("signs");
            serde_json::Map::from_iter([
                ("kind".to_owned(), "key-handover".into()),
                ("note".to_owned(), note.into()),
            ])
        };
        let mut trusted = Trusted::new(&[key(1).public()]);
        trusted.note(&record(2, 3));
        trusted.note(&record(5, 6));
        assert_eq!(trusted.handovers(), []);
        trusted.note(&record(1, 2));
        assert_eq!(trusted.handovers(), [key(2).public(), key(3).public()]);
    }

    #[test]
    fn a_key_hands_over_only_together_with_the_next_one() {
        let note = hand_over(&key(1), &key(2)).expect("signs");
        assert_eq!(handed_over(&note, &[key(1).public()]).expect("valid"), key(2).public());
        assert!(handed_over(&note, &[key(3).public()]).is_err());
        let one_signature: Vec<&str> = note.lines().collect();
        let cut = one_signature[..one_signature.len() - 1].join("\n") + "\n";
        assert!(handed_over(&cut, &[key(1).public()]).is_err());
        let other = note.replace(&key(2).public().text(), &key(3).public().text());
        assert!(handed_over(&other, &[key(1).public()]).is_err());
    }
}
