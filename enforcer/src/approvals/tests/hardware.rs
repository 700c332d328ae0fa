//! Keys in devices. What such a device signs is put together here, byte by byte, as openssh-portable's PROTOCOL.u2f has
//! it: no library's encoder agrees with itself alone.

use crate::approvals::{
    approver::Approvers,
    error::DecisionError,
    signature::{identify, tests::NOBODY},
    statement::NAMESPACE,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256, Sha512};

const APPLICATION: &[u8] = b"ssh:";
const TOUCHED: u8 = 1;
/// "User verified": by a PIN, say; not a touch.
const VERIFIED: u8 = 4;

/// A device.
enum Device {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A number that is not negative: its bytes without zeroes in front, but one where the highest bit would be a sign.
fn number(bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..];
    let sign: &[u8] = if bytes.first().is_some_and(|first| first & 0x80 != 0) { &[0] } else { &[] };
    string(&[sign, bytes].concat())
}

impl Device {
    fn both(seed: u8) -> [Self; 2] {
        let p256 = p256::ecdsa::SigningKey::from_slice(&[seed; 32]).expect("a key");
        [Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[seed; 32])), Self::P256(p256)]
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Self::P256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn public(&self) -> Vec<u8> {
        let key = match self {
            Self::Ed25519(key) => string(key.verifying_key().as_bytes()),
            Self::P256(key) => {
                let point = key.verifying_key().to_encoded_point(false);
                [string(b"nistp256"), string(point.as_bytes())].concat()
            }
        };
        [string(self.kind().as_bytes()), key, string(APPLICATION)].concat()
    }

    fn approver(&self) -> Approvers {
        let key = format!("{} {} a device", self.kind(), BASE64_STANDARD.encode(self.public()));
        let text = format!(
            "name = \"alice\"\nperson = \"Alice\"\nkeys = [\"{key}\"]\n[[scopes]]\nagents = [\"*\"]\ntiers = [\"low\"]\n"
        );
        let approvers = Approvers::read([Ok(("alice".to_owned(), text))]);
        assert!(approvers.problems.is_empty(), "{:?}", approvers.problems);
        approvers
    }

    /// What ssh-keygen writes when the device has signed with these flags; `claimed` are those that it is told.
    fn sign(&self, text: &str, signed: u8, claimed: u8, counter: u32) -> String {
        let message = [
            &b"SSHSIG"[..],
            &string(NAMESPACE.as_bytes()),
            &string(b""),
            &string(b"sha512"),
            &string(&Sha512::digest(text)),
        ]
        .concat();
        let data = [
            &Sha256::digest(APPLICATION)[..],
            &[signed],
            &counter.to_be_bytes(),
            &Sha256::digest(message)[..],
        ]
        .concat();
        let signature = match self {
            Self::Ed25519(key) => string(&key.sign(&data).to_bytes()),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(&data);
                let (r, s) = signature.split_bytes();
                string(&[number(&r), number(&s)].concat())
            }
        };
        let signature =
            [string(self.kind().as_bytes()), signature, vec![claimed], counter.to_be_bytes().to_vec()]
                .concat();
        let blob = [
            &b"SSHSIG"[..],
            &1u32.to_be_bytes(),
            &string(&self.public()),
            &string(NAMESPACE.as_bytes()),
            &string(b""),
            &string(b"sha512"),
            &string(&signature),
        ]
        .concat();
        let base64 = BASE64_STANDARD.encode(blob);
        let lines: Vec<&str> =
            base64.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).expect("ascii")).collect();
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
    }
}

#[test]
fn a_touched_device_decides_and_an_untouched_one_does_not() {
    // Some seeds, so that numbers with and without a leading bit come up.
    for device in (1..=12).flat_map(Device::both) {
        let approvers = device.approver();
        let ask = |armor: &str| identify("text\n", "alice", Some(armor), &NOBODY, &approvers);
        for counter in [0, 1, 0xffff_ffff] {
            let touched = ask(&device.sign("text\n", TOUCHED, TOUCHED, counter)).map(|i| i.name());
            assert_eq!(touched, Ok("alice".to_owned()), "{}", device.kind());
            let both = device.sign("text\n", TOUCHED | VERIFIED, TOUCHED | VERIFIED, counter);
            assert!(ask(&both).is_ok());
            for flags in [0, VERIFIED] {
                let untouched = ask(&device.sign("text\n", flags, flags, counter));
                assert_eq!(untouched, Err(DecisionError::Untouched("alice".to_owned())), "{}", device.kind());
            }
            // The flags and the counter are signed too.
            for (signed, claimed) in [(0, TOUCHED), (TOUCHED, TOUCHED | VERIFIED)] {
                let claimed = ask(&device.sign("text\n", signed, claimed, counter));
                assert!(matches!(claimed, Err(DecisionError::Signature(_))), "{claimed:?}");
            }
        }
        let other = ask(&device.sign("other\n", TOUCHED, TOUCHED, 1));
        assert!(matches!(other, Err(DecisionError::Signature(_))), "{other:?}");
    }
    // Another device.
    let [first, second] = [1, 2].map(|seed| Device::both(seed).into_iter().next().expect("a device"));
    let armor = second.sign("text\n", TOUCHED, TOUCHED, 1);
    let refused = identify("text\n", "alice", Some(&armor), &NOBODY, &first.approver()).map(|i| i.name());
    assert!(matches!(refused, Err(DecisionError::UnknownKey(_))), "{refused:?}");
}
