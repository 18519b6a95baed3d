use super::{Frontier, Hash, Prover, is_consistent, is_included, leaf_hash, node_hash, split};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

/// The eight leaves of certificate-transparency's tests, and the root of each of their trees.
const LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// MTH of RFC 6962, section 2.1, as it is written there.
fn naive(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        more => {
            let left = usize::try_from(split(more.len() as u64)).unwrap();
            node_hash(&naive(&more[..left]), &naive(&more[left..]))
        }
    }
}

fn frontier(leaves: &[Hash]) -> Frontier {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.push(*leaf));
    frontier
}

fn prove(mut prover: Prover, leaves: &[Hash]) -> Vec<Hash> {
    leaves.iter().for_each(|leaf| prover.push(*leaf));
    prover.finish().unwrap()
}

#[test]
fn roots_are_those_of_certificate_transparency() {
    let mut tree = Frontier::default();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(hex(&tree.root()), *root, "{size} leaves");
        if let Some(leaf) = LEAVES.get(size) {
            tree.push(leaf_hash(&[leaf]));
        }
    }
}

#[test]
fn proofs_are_those_of_certificate_transparency() {
    let leaves: Vec<Hash> = LEAVES.iter().map(|leaf| leaf_hash(&[leaf])).collect();
    let path = |leaf, size: usize| {
        let prover = Prover::inclusion(leaf, size as u64).unwrap();
        prove(prover, &leaves[..size]).iter().map(hex).collect::<Vec<_>>()
    };
    // Leaf 5 of 8, leaf 2 of 3, in the numbering from 0.
    assert_eq!(
        path(5, 8),
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert_eq!(path(2, 3), [ROOTS[2]]);
    let steps = |old, size: usize| {
        let prover = Prover::consistency(old, size as u64).unwrap();
        prove(prover, &leaves[..size]).iter().map(hex).collect::<Vec<_>>()
    };
    assert_eq!(
        steps(6, 8),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    assert!(steps(8, 8).is_empty());
}

/// A node's two hashes, given as the 64 bytes of a leaf, make another hash; a node's hash, taken for a leaf's, another tree.
#[test]
fn a_node_is_no_leaf() {
    let (left, right) = (leaf_hash(&[b"a"]), leaf_hash(&[b"b"]));
    let node = node_hash(&left, &right);
    assert_ne!(leaf_hash(&[&left, &right]), node);
    let root = frontier(&[left, right]).root();
    assert_eq!(root, node);
    assert!(is_included(&left, 0, 2, &[right], &root));
    assert!(!is_included(&node, 0, 2, &[], &root));
}

proptest! {
    #[test]
    fn a_tree_that_grows_is_the_tree_as_defined(size in 0_usize..200, old in 0_usize..200) {
        let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&[&n.to_le_bytes()])).collect();
        let tree = frontier(&leaves);
        prop_assert_eq!(tree.root(), naive(&leaves));
        let again = Frontier::from_peaks(tree.size(), tree.peaks().to_vec());
        prop_assert_eq!(again, Some(tree.clone()));
        prop_assert!(Frontier::from_peaks(tree.size() + 1, vec![[0; 32]; 70]).is_none());
        if 0 < old && old <= size {
            let (first, second) = ((old as u64, naive(&leaves[..old])), (size as u64, tree.root()));
            let path = prove(Prover::consistency(old as u64, size as u64).unwrap(), &leaves);
            prop_assert!(is_consistent(first, second, &path));
            let wrong = (first.0, leaf_hash(&[b"another"]));
            prop_assert!(!is_consistent(wrong, second, &path));
        }
    }

    #[test]
    fn each_leaf_is_proved_and_no_other(size in 1_usize..130, leaf in 0_usize..130, bit in 0_usize..256) {
        prop_assume!(leaf < size);
        let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&[&n.to_le_bytes()])).collect();
        let root = naive(&leaves);
        let path = prove(Prover::inclusion(leaf as u64, size as u64).unwrap(), &leaves);
        prop_assert!(is_included(&leaves[leaf], leaf as u64, size as u64, &path, &root));
        let mut wrong = leaves[leaf];
        wrong[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!is_included(&wrong, leaf as u64, size as u64, &path, &root));
        for other in (0..size).filter(|other| *other != leaf) {
            prop_assert!(!is_included(&leaves[leaf], other as u64, size as u64, &path, &root));
        }
    }
}
