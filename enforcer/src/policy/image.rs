//! A compiled policy in the form that the kernel programs read.

use super::{
    automaton::Automaton,
    ports::Ports,
    rule::{RuleId, normal},
};
use enforcer_common::{
    calls::Actions,
    floor::Grants,
    limits::GROUPS,
    map::{Masks, NetKey, NetValue, PortRange, STATE_SETTLED},
};
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};
use zerocopy::IntoBytes;

/// Rows of automata and port tables, ready to be placed anywhere in the arena.
///
/// A clone shares the tables.
#[derive(Clone, Debug)]
pub struct Image {
    automata: Arc<[Automaton]>,
    ports: Arc<Ports>,
    grants: Grants,
    first_uses: FirstUses,
    /// Asked for several times, and as long to make as to write the tables.
    digest: Arc<OnceLock<[u8; 32]>>,
}

/// Of which rules the kernel tells the first use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstUses {
    /// Those about paths and unix sockets.
    pub paths: bool,
    /// Those about addresses.
    pub addresses: bool,
}

/// An image at its place in the arena.
#[derive(Clone, PartialEq, Eq)]
pub struct Placed {
    /// What to write at the place's base.
    pub bytes: Vec<u8>,
    /// Automata in use.
    pub groups: u16,
    /// State of each automaton after the leading slash; 0 where unused.
    pub start: [u32; GROUPS],
    /// Per automaton: byte → column of its row, as a byte offset.
    pub class: [[u16; 256]; GROUPS],
    /// Entries of the longest-prefix table; the policy's id in the keys is 0.
    pub net: Vec<NetEntry>,
    /// What changes of the floor.
    pub grants: Grants,
}

/// An entry of the longest-prefix table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetEntry {
    /// Bits of the key that count, policy, family and protocol included.
    pub prefix_bits: u32,
    /// 4 or 6.
    pub family: u8,
    /// The protocol's number.
    pub protocol: u8,
    /// As in [`enforcer_common::address::Address::bytes`].
    pub address: [u8; 16],
    /// Where the ranges of ports lie.
    pub value: NetValue,
}

/// Bases are multiples of this.
pub const ALIGN: u32 = 16;

impl Image {
    pub(super) fn new(automata: Vec<Automaton>, ports: Ports, grants: Grants, first_uses: FirstUses) -> Self {
        Self { automata: automata.into(), ports: Arc::new(ports), grants, first_uses, digest: Arc::default() }
    }

    /// Of which rules the kernel tells the first use: where there are too many, of none.
    pub fn first_uses(&self) -> FirstUses {
        self.first_uses
    }

    pub(super) fn automata(&self) -> &[Automaton] {
        &self.automata
    }

    pub(super) fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Bytes that it takes in the arena.
    #[expect(clippy::len_without_is_empty, reason = "an image always has its dead state")]
    pub fn len(&self) -> usize {
        let (automata, ports) = self.offsets();
        debug_assert!(automata.len() == self.automata.len());
        ports + self.ports.ranges() * size_of::<PortRange>()
    }

    /// States of all automata.
    pub fn states(&self) -> usize {
        self.automata.iter().map(Automaton::states).sum()
    }

    /// States of each automaton.
    pub fn group_states(&self) -> Vec<usize> {
        self.automata.iter().map(Automaton::states).collect()
    }

    /// Where each automaton starts, and where the port tables start.
    fn offsets(&self) -> (Vec<usize>, usize) {
        let mut at = 0;
        let starts = self
            .automata
            .iter()
            .map(|automaton| {
                let start = at;
                at = (at + automaton.bytes()).next_multiple_of(ALIGN as usize);
                start
            })
            .collect();
        (starts, at)
    }

    /// How many address prefixes it has.
    pub fn prefixes(&self) -> usize {
        self.ports.prefixes.len()
    }

    /// The image for a place that starts at byte `base` of the arena, a multiple of [`ALIGN`].
    pub fn place(&self, base: u32) -> Placed {
        debug_assert!(base.is_multiple_of(ALIGN));
        let (starts, ports_at) = self.offsets();
        let mut placed = Placed {
            bytes: Vec::with_capacity(self.len()),
            groups: self.automata.len() as u16,
            start: [0; GROUPS],
            class: [[0; 256]; GROUPS],
            net: Vec::with_capacity(self.ports.prefixes.len()),
            grants: self.grants,
        };
        for (group, (automaton, at)) in self.automata.iter().zip(starts).enumerate() {
            placed.bytes.resize(at, 0);
            let here = base + at as u32;
            automaton.write(here, &mut placed.bytes);
            placed.start[group] = automaton.reference(automaton.start(), here);
            placed.class[group] = automaton.class_table();
        }
        placed.bytes.resize(ports_at, 0);
        let mut tables = Vec::with_capacity(self.ports.tables.len());
        let mut index = 0;
        for table in &self.ports.tables {
            let ranges = base + placed.bytes.len() as u32;
            tables.push(NetValue { ranges, count: table.len() as u32 });
            for range in table {
                let masks = Masks { set: range.set, ..range.masks };
                let row = PortRange { first: range.first, last: range.last, index, masks };
                placed.bytes.extend_from_slice(row.as_bytes());
                index += 1;
            }
        }
        for ((prefix, protocol), table) in &self.ports.prefixes {
            placed.net.push(NetEntry {
                prefix_bits: NetKey::FIXED_BITS + u32::from(prefix.bits),
                family: prefix.family,
                protocol: *protocol,
                address: prefix.bytes,
                value: tables[*table],
            });
        }
        placed
    }

    /// SHA-256 over the image as placed at 0.
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| self.make_digest())
    }

    fn make_digest(&self) -> [u8; 32] {
        let Placed { bytes, groups, start, class, net, grants } = self.place(0);
        let mut hash = Sha256::new();
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
        hash.update(groups.to_le_bytes());
        hash.update(grants.floor.to_le_bytes());
        hash.update(grants.capabilities.to_le_bytes());
        // Policies that say nothing of system calls keep the digest that they always had.
        if grants.calls != Actions::default() {
            let Actions { ignored, stopped, killed } = grants.calls;
            [ignored, stopped, killed].iter().for_each(|bits| hash.update(bits.to_le_bytes()));
        }
        hash.update(start.as_bytes());
        hash.update(class.as_bytes());
        for NetEntry { prefix_bits, family, protocol, address, value } in net {
            hash.update(prefix_bits.to_le_bytes());
            hash.update([family, protocol]);
            hash.update(address);
            hash.update(value.as_bytes());
        }
        hash.finalize().into()
    }

    /// The rules that may have matched where the automata of an image placed at `base` stand.
    ///
    /// States that agree in everything that the kernel can see are one, so this can name more rules
    /// than a path really matched: [`super::reference::rules_at_path`] tells which.
    pub fn rules_at(&self, states: [u32; GROUPS], base: u32) -> Vec<RuleId> {
        let (starts, _) = self.offsets();
        let mut rules = Vec::new();
        for ((automaton, at), state) in self.automata.iter().zip(starts).zip(states) {
            let Some(offset) = (state & !STATE_SETTLED).checked_sub(base + at as u32) else { continue };
            let row = offset as usize / automaton.stride();
            rules.extend(automaton.labels(row as u32).iter().map(|rule| RuleId(*rule)));
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// The rules that may match a path (with or without its leading slash), as [`Self::rules_at`] says it
    /// of states: found by running the automata, however many rules there are.
    pub fn rules_near(&self, path: &[u8]) -> Vec<RuleId> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let labels = self.automata.iter().flat_map(|automaton| automaton.labels(automaton.run(path)));
        let mut rules: Vec<RuleId> = labels.map(|rule| RuleId(*rule)).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// The rules behind one range of ports, by [`PortRange::index`].
    pub fn rules_at_port(&self, index: u32) -> Vec<RuleId> {
        let range = self.ports.tables.iter().flatten().nth(index as usize);
        range.map_or_else(Vec::new, |range| range.rules.iter().map(|rule| RuleId(*rule)).collect())
    }

    /// What the automata say about a path, without what can never become a verdict; the path is
    /// with or without its leading slash.
    pub fn masks_at(&self, path: &[u8]) -> Masks {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let mut masks = Masks::NONE;
        for automaton in self.automata.iter() {
            masks.join(&automaton.masks(automaton.run(path)));
        }
        normal(&masks)
    }

    /// What rules deny and hold at a path, with or without its leading slash.
    pub fn stops_at(&self, path: &[u8]) -> Masks {
        Masks { allow: [0; 3], ..self.masks_at(path) }
    }

    /// Where the automata of an image placed at `base` stand after a path, with or without its leading slash.
    pub fn states_at(&self, path: &[u8], base: u32) -> [u32; GROUPS] {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let mut states = [0; GROUPS];
        for ((automaton, at), state) in self.automata.iter().zip(self.offsets().0).zip(&mut states) {
            *state = automaton.reference(automaton.run(path), base + at as u32);
        }
        states
    }

    /// Whether nothing in or below a directory changes its rights when it moves from `a` to `b`:
    /// each automaton stands at states that say the same behind both, and says the same about both. With several
    /// automata this can be false where they agree only together, as it is in the kernel.
    pub fn same_directory(&self, a: &[u8], b: &[u8]) -> bool {
        let at = |automaton: &Automaton, path: &[u8]| {
            let path = path.strip_prefix(b"/").unwrap_or(path);
            let state = automaton.run(path);
            let behind = if path.is_empty() { state } else { automaton.step(state, b'/') };
            (automaton.twin(behind), automaton.masks(state))
        };
        self.automata.iter().all(|automaton| at(automaton, a) == at(automaton, b))
    }
}
