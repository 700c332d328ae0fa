//! The tree against its definition and against another implementation.

use super::*;
use proptest::prelude::*;
use std::convert::Infallible;

/// Nodes computed from all leaves, as the RFC defines them.
struct Leaves(Vec<Hash>);

impl Nodes for Leaves {
    type Error = Infallible;
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Infallible> {
        let width = 1usize << height;
        let from = index as usize * width;
        Ok(root_of(&self.0[from..from + width]))
    }
}

impl tlog_tiles::HashReader for Leaves {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        let node = |index: &u64| {
            let (level, n) = tlog_tiles::split_stored_hash_index(*index);
            let width = 1usize << level;
            let from = n as usize * width;
            tlog_tiles::Hash(root_of(&self.0[from..from + width]))
        };
        Ok(indexes.iter().map(node).collect())
    }
}

fn leaves(count: u64) -> Leaves {
    Leaves((0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect())
}

fn theirs(proof: &[Hash]) -> Vec<tlog_tiles::Hash> {
    proof.iter().map(|hash| tlog_tiles::Hash(*hash)).collect()
}

#[test]
fn hashes_are_those_of_the_rfc() {
    // The known roots of certificate transparency's test trees: no leaf, one empty leaf.
    assert_eq!(
        crate::event::text::hex(&empty_root()),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_eq!(
        crate::event::text::hex(&leaf_hash(b"")),
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    );
    assert_eq!(tlog_tiles::record_hash(b"x").0, leaf_hash(b"x"));
}

#[test]
fn an_edge_has_the_root_of_all_leaves_and_fills_tiles_in_order() {
    let all = leaves(70_000).0;
    let (mut edge, mut tiles) = (Edge::default(), Vec::new());
    for (index, leaf) in all.iter().enumerate() {
        if index < 600 || index % 9973 == 0 {
            assert_eq!(edge.root(), root_of(&all[..index]), "{index}");
        }
        edge.push(*leaf, &mut |tile| tiles.push(tile));
    }
    assert_eq!(edge.root(), root_of(&all));
    let of_level =
        |level| tiles.iter().filter(move |t| t.level == level).map(|t| t.number).collect::<Vec<_>>();
    assert_eq!(of_level(0), (0..273).collect::<Vec<_>>());
    assert_eq!(of_level(1), [0]);
    let again = Edge::from_levels(edge.size(), edge.levels().to_vec()).expect("fits");
    assert_eq!(again, edge);
    assert_eq!(Edge::from_levels(edge.size() + 1, edge.levels().to_vec()), None);
}

proptest! {
    #[test]
    fn inclusion_is_proven_for_every_leaf_and_no_other(size in 1u64..600, pick: u64, other: u64) {
        let mut all = leaves(size);
        let (index, other) = (pick % size, other % size);
        let root = root_of(&all.0);
        let proof = prove_inclusion(&mut all, index, size).expect("nodes");
        prop_assert!(check_inclusion(&proof, index, &all.0[index as usize], size, &root));
        prop_assert_eq!(check_inclusion(&proof, other, &all.0[index as usize], size, &root), other == index);
        prop_assert_eq!(check_inclusion(&proof, index, &all.0[other as usize], size, &root), other == index);
        prop_assert!(!check_inclusion(&proof, size, &all.0[index as usize], size, &root));
        let mut longer = proof.clone();
        longer.push([0; 32]);
        prop_assert!(!check_inclusion(&longer, index, &all.0[index as usize], size, &root));
        if !proof.is_empty() {
            prop_assert!(!check_inclusion(&proof[1..], index, &all.0[index as usize], size, &root));
        }
        let theirs = theirs(&proof);
        let leaf = tlog_tiles::Hash(all.0[index as usize]);
        prop_assert!(tlog_tiles::check_record(&theirs, size, tlog_tiles::Hash(root), index, leaf).is_ok());
        prop_assert_eq!(tlog_tiles::prove_record(size, index, &all).expect("proof"), theirs);
    }

    #[test]
    fn consistency_is_proven_for_every_prefix_and_nothing_else(size in 1u64..600, pick: u64) {
        let mut all = leaves(size);
        let old = 1 + pick % size;
        let (root, old_root) = (root_of(&all.0), root_of(&all.0[..old as usize]));
        let proof = prove_consistency(&mut all, old, size).expect("nodes");
        prop_assert!(check_consistency(&proof, old, &old_root, size, &root));
        prop_assert!(!check_consistency(&proof, old, &[7; 32], size, &root));
        prop_assert!(!check_consistency(&proof, old, &old_root, size, &[7; 32]));
        if old < size {
            let mut longer = proof.clone();
            longer.push([0; 32]);
            prop_assert!(!check_consistency(&longer, old, &old_root, size, &root));
            prop_assert!(!check_consistency(&proof[1..], old, &old_root, size, &root));
            prop_assert_eq!(tlog_tiles::prove_tree(size, old, &all).expect("proof"), theirs(&proof));
        }
        let (ours, t, h) = (theirs(&proof), tlog_tiles::Hash(root), tlog_tiles::Hash(old_root));
        prop_assert!(tlog_tiles::check_tree(&ours, size, t, old, h).is_ok());
    }

    #[test]
    fn arbitrary_proofs_prove_nothing_and_panic_nowhere(
        proof in proptest::collection::vec(any::<Hash>(), 0..70), a: u64, b: u64, hash: Hash
    ) {
        prop_assert!(!check_inclusion(&proof, a, &hash, b, &[1; 32]));
        prop_assert!(!check_consistency(&proof, a.max(1), &hash, b, &[1; 32]) || hash == [1; 32]);
    }
}
