//! The addresses about which two policies differ, from their longest-prefix tables.

use super::change::{Change, Levels};
use crate::policy::{
    endpoint::{Prefix, TCP, UDP},
    image::Image,
    ports::{Ports, Range},
    rule::Section,
};
use enforcer_common::{access::net, address::Address, map::Masks};
use std::collections::BTreeSet;

/// A difference at some ports of a block of addresses.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) change: Change,
    pub(super) operations: u16,
    /// The block; narrower ones inside it may be answered otherwise.
    pub(super) block: Prefix,
    pub(super) ports: (u16, u16),
    pub(super) protocol: u8,
    pub(super) example: Address,
    /// The rules of either policy that match there.
    pub(super) labels: [Vec<u32>; 2],
}

/// Every difference, the widest blocks first.
pub(super) fn compare(a: &Image, b: &Image, levels: &Levels) -> Vec<Found> {
    let (a, b) = (a.ports(), b.ports());
    let mut found = Vec::new();
    for protocol in [TCP, UDP] {
        let mut blocks: Vec<Prefix> = [a, b]
            .into_iter()
            .flat_map(|ports| ports.prefixes.keys().filter(|(_, own)| *own == protocol))
            .map(|(prefix, _)| *prefix)
            .chain([Prefix::whole(4), Prefix::whole(6)])
            .collect();
        // What lies inside a block follows it.
        blocks.sort_unstable_by_key(|block| (block.family, block.bytes, block.bits));
        blocks.dedup();
        for (i, block) in blocks.iter().enumerate() {
            let tables = [table(a, block, protocol), table(b, block, protocol)];
            for (ports, masks, labels) in side_by_side(tables) {
                for (change, operations) in levels.changes(Section::Network, &masks[0], &masks[1]) {
                    let Some(example) = address_in(block, &blocks[i + 1..], operations) else { continue };
                    let labels = labels.clone();
                    found.push(Found { change, operations, block: *block, ports, protocol, example, labels });
                }
            }
        }
    }
    found.sort_by_key(|found| (found.block.bits, found.block, found.ports, found.protocol));
    found
}

/// The ranges of ports of the longest prefix around `block`.
fn table<'a>(ports: &'a Ports, block: &Prefix, protocol: u8) -> &'a [Range] {
    let around = (0..=block.bits).rev().find_map(|bits| ports.prefixes.get(&(block.widened(bits), protocol)));
    around.map_or(&[], |table| &ports.tables[*table])
}

type Both = ((u16, u16), [Masks; 2], [Vec<u32>; 2]);

/// All ports in ranges over which neither table changes.
fn side_by_side(tables: [&[Range]; 2]) -> Vec<Both> {
    let mut starts: BTreeSet<u32> = BTreeSet::from([0]);
    for range in tables.iter().copied().flatten() {
        starts.extend([u32::from(range.first), u32::from(range.last) + 1]);
    }
    starts.insert(1 << 16);
    let starts: Vec<u32> = starts.into_iter().collect();
    let at = |table: &[Range], port: u16| {
        let range = table.iter().find(|range| range.first <= port && port <= range.last);
        range.map_or((Masks::NONE, Vec::new()), |range| (range.masks, range.rules.clone()))
    };
    let pieces = starts.windows(2).map(|pair| {
        let (first, last) = (pair[0] as u16, (pair[1] - 1) as u16);
        let [(a, of_a), (b, of_b)] = tables.map(|table| at(table, first));
        ((first, last), [a, b], [of_a, of_b])
    });
    pieces.collect()
}

/// An address of the block that no narrower one contains and that packets can carry. `behind` are the
/// blocks that follow it, those inside it first.
fn address_in(block: &Prefix, behind: &[Prefix], operations: u16) -> Option<Address> {
    // IPv4-mapped addresses are IPv4 (`Address::v6()`).
    let mut mapped = Prefix { bits: 96, ..Prefix::whole(6) };
    mapped.bytes[10..12].fill(0xff);
    // As a destination the unspecified address is the host itself, and judged as that.
    let full = if block.family == 4 { 32 } else { 128 };
    let unspecified = Prefix { bits: full, ..Prefix::whole(block.family) };
    let never = operations & net::CONNECT != 0;
    if never && *block == unspecified {
        return None;
    }
    let inside = |other: &Prefix| {
        other.family == block.family && other.bits > block.bits && other.widened(block.bits) == *block
    };
    let mut holes: Vec<Prefix> = behind.iter().take_while(|other| inside(other)).copied().collect();
    holes.extend([mapped].into_iter().chain(never.then_some(unspecified)).filter(inside));
    holes.sort_unstable_by_key(|hole| hole.bytes);
    let mut at = u128::from_be_bytes(block.bytes);
    for hole in holes {
        if at < u128::from_be_bytes(hole.bytes) {
            break;
        }
        at = at.max(end(&hole)?);
    }
    let inside = end(block).is_none_or(|end| at < end);
    inside.then(|| Address { family: block.family, bytes: at.to_be_bytes() })
}

/// The first address behind a block, if there is one.
fn end(block: &Prefix) -> Option<u128> {
    let size = 1u128.checked_shl(128 - u32::from(block.bits));
    size.and_then(|size| u128::from_be_bytes(block.bytes).checked_add(size))
}
