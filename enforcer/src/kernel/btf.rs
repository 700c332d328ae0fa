//! Reads member offsets from the kernel's own type information (BTF,
//! Documentation/bpf/btf.rst). Only what the list of offsets needs; pure, bytes in, numbers out.

use std::collections::{HashMap, HashSet};

/// Why type information cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are no BTF, or end early.
    #[error("the kernel's type information is malformed at byte {0}")]
    Malformed(usize),
    /// No such structure, or it has no such member.
    #[error("the kernel has no {0}")]
    Missing(String),
    /// The member is there, but is not what the programs would read.
    #[error("{member} has {found} bytes, the programs read {expected}")]
    Size {
        /// The member.
        member: String,
        /// Its size.
        found: u32,
        /// The expected size.
        expected: u32,
    },
}

/// A member's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the beginning of the structure.
    pub offset: u32,
    /// Bytes that it takes.
    pub size: u32,
    /// It lies in a union: newer verifiers do not trust pointers that are read through one.
    pub in_union: bool,
}

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FORWARD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

const MAGIC: u32 = 0xeb9f;

/// Parsed type information.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Byte offset of each type; entry 0 is void.
    at: Vec<u32>,
    /// Ids of the structures by name; a name can occur twice.
    structs: HashMap<&'a [u8], Vec<u32>>,
    /// Ids of the functions by name.
    functions: HashMap<&'a [u8], u32>,
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let four = bytes.get(at..at + 4).ok_or(BtfError::Malformed(at))?;
    Ok(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

/// Type information of these types and names.
fn assembled(types: &[u32], strings: Vec<u8>) -> Vec<u8> {
    const HEADER: u32 = 24;
    const VERSION: u32 = 1 << 16;
    let length = 4 * types.len() as u32;
    let header = [MAGIC | VERSION, HEADER, 0, length, length, strings.len() as u32];
    header.iter().chain(types).flat_map(|word| word.to_ne_bytes()).chain(strings).collect()
}

/// Bytes of a type behind its twelve-byte head.
pub(super) fn tail(kind: u32, count: u32) -> usize {
    let count = count as usize;
    match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
        kind::ENUM | kind::FUNC_PROTO => 8 * count,
        _ => 0,
    }
}

impl<'a> Btf<'a> {
    /// Parses `/sys/kernel/btf/vmlinux`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        if word(bytes, 0)? & 0xffff != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header = word(bytes, 4)? as usize;
        let section = |offset: usize, length: usize| -> Result<&'a [u8], BtfError> {
            let from = header + word(bytes, offset)? as usize;
            bytes.get(from..from + word(bytes, length)? as usize).ok_or(BtfError::Malformed(from))
        };
        let (types, strings) = (section(8, 12)?, section(16, 20)?);
        let mut found =
            Self { types, strings, at: vec![0], structs: HashMap::new(), functions: HashMap::new() };
        let mut at = 0;
        while at < types.len() {
            let (name, info) = (word(types, at)?, word(types, at + 4)?);
            let id = found.at.len() as u32;
            found.at.push(at as u32);
            match info >> 24 & 0x1f {
                kind::STRUCT if name != 0 => found.structs.entry(found.text(name)?).or_default().push(id),
                // Some kernels have one twice (as it is, and as the stand-in that it takes the place of); the loader
                // takes the first.
                kind::FUNC => drop(found.functions.entry(found.text(name)?).or_insert(id)),
                _ => {}
            }
            at += 12 + tail(info >> 24 & 0x1f, info & 0xffff);
        }
        Ok(found)
    }

    /// Where `path` (`a.b.c`) lies in the structure called `of`. Anonymous members are looked
    /// through; of several structures of that name the one that has the member counts.
    pub fn member(&self, of: &str, path: &str) -> Result<Member, BtfError> {
        let ids = self.structs.get(of.as_bytes()).map_or(&[][..], Vec::as_slice);
        for id in ids {
            if let Some(found) = self.resolve(*id, path)? {
                return Ok(found);
            }
        }
        Err(BtfError::Missing(format!("{of}.{path}")))
    }

    /// Whether there is a function of that name, and how many parameters it takes.
    pub fn function(&self, name: &str) -> Option<u32> {
        let id = *self.functions.get(name.as_bytes())?;
        let proto = word(self.types, self.at[id as usize] as usize + 8).ok()?;
        let info = word(self.types, *self.at.get(proto as usize)? as usize + 4).ok()?;
        Some(info & 0xffff)
    }

    /// What tells functions of different parameters apart, names included.
    pub fn prototype(&self, name: &str) -> Option<u32> {
        let id = *self.functions.get(name.as_bytes())?;
        word(self.types, self.at[id as usize] as usize + 8).ok()
    }

    /// Type information that has the functions and type names of `wanted` under the ids that they have here, and nothing
    /// else. Loading a program looks for its function among all types, one after the other and by name: in
    /// the whole of them that takes longer than the verifier does for a small program.
    pub fn only(&self, wanted: &HashSet<&[u8]>) -> Result<Vec<u8>, BtfError> {
        // What stands between: a forward declaration without a name has the same length.
        let nothing = [0, kind::FORWARD << 24, 0];
        let (mut types, mut strings, mut rest) = (Vec::new(), vec![0], Vec::new());
        for at in &self.at[1..] {
            let at = *at as usize;
            let (name, info) = (word(self.types, at)?, word(self.types, at + 4)?);
            let text = match info >> 24 & 0x1f {
                kind::FUNC | kind::TYPEDEF => Some(self.text(name)?).filter(|text| wanted.contains(text)),
                _ => None,
            };
            let Some(text) = text else {
                rest.extend(nothing);
                continue;
            };
            types.append(&mut rest);
            types.extend([strings.len() as u32, info, word(self.types, at + 8)?]);
            strings.extend_from_slice(text);
            strings.push(0);
        }
        Ok(assembled(&types, strings))
    }

    /// The id of the function of that name.
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.functions.get(name.as_bytes()).copied()
    }

    /// The id of the structure of that name, if there is exactly one.
    pub fn structure_id(&self, name: &str) -> Option<u32> {
        match self.structs.get(name.as_bytes())?.as_slice() {
            [id] => Some(*id),
            _ => None,
        }
    }

    fn resolve(&self, id: u32, path: &str) -> Result<Option<Member>, BtfError> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        let Some((member, kind)) = self.search(id, first.as_bytes(), 0)? else { return Ok(None) };
        let Some(rest) = rest else {
            return Ok(Some(Member { size: self.size(kind, 0)?, ..member }));
        };
        let Some(inner) = self.resolve(self.strip(kind)?, rest)? else { return Ok(None) };
        Ok(Some(Member {
            offset: member.offset + inner.offset,
            size: inner.size,
            in_union: member.in_union || inner.in_union,
        }))
    }

    /// The member called `name` of structure or union `id`, and its type.
    fn search(&self, id: u32, name: &[u8], depth: u32) -> Result<Option<(Member, u32)>, BtfError> {
        let at = *self.at.get(id as usize).ok_or(BtfError::Malformed(0))? as usize;
        let info = word(self.types, at + 4)?;
        let (is, count, sized) = (info >> 24 & 0x1f, info & 0xffff, info >> 31 != 0);
        if !matches!(is, kind::STRUCT | kind::UNION) || depth > 8 {
            return Ok(None);
        }
        for i in 0..count as usize {
            let entry = at + 12 + 12 * i;
            let (label, of) = (word(self.types, entry)?, word(self.types, entry + 4)?);
            let bits = word(self.types, entry + 8)?;
            // With the kind flag the upper byte is the width of a bit field.
            let (bits, width) = if sized { (bits & 0xff_ffff, bits >> 24) } else { (bits, 0) };
            let here = Member { offset: bits / 8, size: 0, in_union: is == kind::UNION };
            if label == 0 {
                if let Some((inner, of)) = self.search(self.strip(of)?, name, depth + 1)? {
                    let in_union = here.in_union || inner.in_union;
                    return Ok(Some((Member { offset: here.offset + inner.offset, size: 0, in_union }, of)));
                }
            } else if self.text(label)? == name && width == 0 && bits % 8 == 0 {
                return Ok(Some((here, of)));
            }
        }
        Ok(None)
    }

    /// The type behind names and qualifiers.
    fn strip(&self, mut id: u32) -> Result<u32, BtfError> {
        for _ in 0..32 {
            let at = *self.at.get(id as usize).ok_or(BtfError::Malformed(0))? as usize;
            match word(self.types, at + 4)? >> 24 & 0x1f {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG if id != 0 => {
                    id = word(self.types, at + 8)?;
                }
                _ => return Ok(id),
            }
        }
        Err(BtfError::Malformed(0))
    }

    fn size(&self, id: u32, depth: u32) -> Result<u32, BtfError> {
        let id = self.strip(id)?;
        let at = self.at[id as usize] as usize;
        match word(self.types, at + 4)? >> 24 & 0x1f {
            kind::PTR => Ok(8),
            kind::ARRAY if depth < 8 => {
                let element = self.size(word(self.types, at + 12)?, depth + 1)?;
                Ok(element * word(self.types, at + 20)?)
            }
            _ => word(self.types, at + 8),
        }
    }

    fn text(&self, at: u32) -> Result<&'a [u8], BtfError> {
        let from = self.strings.get(at as usize..).ok_or(BtfError::Malformed(at as usize))?;
        let end = from.iter().position(|b| *b == 0).ok_or(BtfError::Malformed(at as usize))?;
        Ok(&from[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This machine's own kernel has type information too, whatever else it refuses.
    fn own() -> Option<Vec<u8>> {
        std::fs::read("/sys/kernel/btf/vmlinux").ok()
    }

    #[test]
    fn members_are_found_through_names_and_anonymous_parts() {
        let Some(bytes) = own() else { return };
        let btf = Btf::parse(&bytes).expect("the kernel's own");
        let name = btf.member("dentry", "d_name.name").expect("dentry.d_name.name");
        let len = btf.member("dentry", "d_name.len").expect("len lies in an anonymous union and struct");
        assert_eq!((name.size, len.size), (8, 4));
        assert_eq!(name.offset, len.offset + 4);
        assert!(matches!(btf.member("dentry", "d_nothing"), Err(BtfError::Missing(_))));
        assert!(matches!(btf.member("no_such_struct", "x"), Err(BtfError::Missing(_))));
    }

    #[test]
    fn functions_tell_how_many_parameters_they_take() {
        let Some(bytes) = own() else { return };
        let btf = Btf::parse(&bytes).expect("the kernel's own");
        assert_eq!(btf.function("bpf_lsm_file_open"), Some(1));
        assert_eq!(btf.function("bpf_lsm_no_such_hook"), None);
    }

    #[test]
    fn a_part_of_the_types_has_them_under_their_own_ids() {
        let (prototype, function, name) = (kind::FUNC_PROTO << 24, kind::FUNC << 24, kind::TYPEDEF << 24);
        // Two prototypes, `one` with each of them, `two`, and `three` as a function and as a name.
        let heads =
            [[0, prototype, 0], [0, prototype, 0], [1, function, 1], [1, function, 2], [5, function, 2]];
        let types = [&heads[..], &[[9, function, 1], [9, name, 0]]].concat().concat();
        let bytes = assembled(&types, b"\0one\0two\0three\0".to_vec());
        let whole = Btf::parse(&bytes).expect("type information");
        // Of a function that is there twice the first counts.
        assert_eq!((whole.function_id("one"), whole.prototype("one")), (Some(3), Some(1)));
        let part = whole.only(&["one", "three", "four"].map(str::as_bytes).into()).expect("a part");
        let part = Btf::parse(&part).expect("type information again");
        assert_eq!((part.function_id("one"), part.prototype("one")), (Some(3), Some(1)));
        assert_eq!((part.function_id("three"), part.functions.len(), part.at.len()), (Some(6), 2, 8));
    }

    #[test]
    fn anything_but_type_information_is_an_error() {
        assert!(Btf::parse(b"").is_err());
        assert!(Btf::parse(&[0; 64]).is_err());
        let Some(mut bytes) = own() else { return };
        bytes.truncate(1000);
        assert!(Btf::parse(&bytes).is_err());
    }
}
