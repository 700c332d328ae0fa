//! Who signed a person's decision: reading the armor, finding the approver, verifying.

use divan::{Bencher, counter::ItemsCount};
use enforcer::approvals::{
    approver::Approvers,
    signature::{LocalPeer, identify},
    statement::NAMESPACE,
};
use ssh_key::{
    HashAlg, LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};

const PEER: LocalPeer = LocalPeer { uid: 1000, pid: 1, login_uid: None, may_decide: false };

#[divan::bench]
fn verify_signature(bencher: Bencher<'_, '_>) {
    let pair = Ed25519Keypair::from_seed(&[1; 32]);
    let key = PrivateKey::new(KeypairData::Ed25519(pair), "bench").expect("a key");
    let public = key.public_key().to_openssh().expect("text");
    let file = format!(
        "name = \"alice\"\nperson = \"Alice\"\nkeys = [\"{public}\"]\n\
         [[scopes]]\nagents = [\"*\"]\ntiers = [\"low\"]\n"
    );
    let approvers = Approvers::read([Ok(("alice.toml".to_owned(), file))]);
    assert!(approvers.problems.is_empty(), "{:?}", approvers.problems);
    // As long as a decision about a few requests is.
    let text = "enforcer-decision 1\n".to_owned() + &"request 0123456789abcdef\n".repeat(12);
    let signature = key.sign(NAMESPACE, HashAlg::Sha512, text.as_bytes()).expect("signed");
    let armor = signature.to_pem(LineEnding::LF).expect("armor");
    bencher.counter(ItemsCount::new(1usize)).bench(|| {
        let identity = identify(&text, "alice", Some(&armor), &PEER, &approvers).expect("Alice");
        identity.name()
    });
}
