//! What the programs take for constants on this kernel.

use super::btf::{Btf, BtfError};
use enforcer_common::{
    limits,
    offsets::{EXTRAS, Extra, FIELDS, PLACEHOLDER, SYMBOLS, Single},
};
use std::os::fd::RawFd;

/// What is set in the programs before they are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// Name and value of each of [`FIELDS`].
    pub values: Vec<(&'static str, u64)>,
    /// Addresses of kernel symbols; 0 for one that is not known.
    pub symbols: Vec<(Extra, u64)>,
    /// `struct file` keeps `f_path` in a union, so that program variants with a tagged argument are
    /// needed.
    pub tagged_paths: bool,
}

impl Globals {
    /// Looks everything up. Members must be there with the expected size; symbols may be missing
    /// (then nothing is cached).
    pub fn find(btf: &Btf<'_>, kallsyms: &str) -> Result<Self, BtfError> {
        let mut values = Vec::new();
        let mut tagged_paths = false;
        for field in FIELDS {
            let mut result = Err(BtfError::Missing(field.of.to_owned()));
            for name in field.members {
                result = btf.member(field.of, name);
                if result.is_ok() {
                    break;
                }
            }
            let member = result?;
            if field.size != 0 && member.size != field.size {
                let member_name = format!("{}.{}", field.of, field.members[0]);
                return Err(BtfError::Size { member: member_name, found: member.size, expected: field.size });
            }
            if field.global == "FILE_PATH" {
                tagged_paths = member.in_union;
            }
            values.push((field.global, u64::from(member.offset)));
        }
        // Instructions take numbers of 32 bits and extend their sign, as the kernel's own addresses are made. Another
        // one counts as unknown.
        let near = |address: &u64| i32::try_from(address.cast_signed()).is_ok();
        let symbols = SYMBOLS
            .iter()
            .map(|(extra, symbol)| (*extra, symbol_address(kallsyms, symbol).filter(near).unwrap_or(0)))
            .collect();
        let found = Self { values, symbols, tagged_paths };
        found.check_layout(btf)?;
        Ok(found)
    }

    /// What the programs take for granted beyond single members.
    fn check_layout(&self, btf: &Btf<'_>) -> Result<(), BtfError> {
        let at = |name: &str| self.values.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v);
        let together =
            at("DENTRY_LEN") == at("DENTRY_PARENT") + 12 && at("DENTRY_NAME") == at("DENTRY_PARENT") + 16;
        if !together {
            return Err(BtfError::Missing("dentry with d_parent, d_name in one piece".to_owned()));
        }
        if at("DENTRY_COUNT") != at("DENTRY_FLAGS") + 4 {
            return Err(BtfError::Missing("dentry with d_flags, d_seq in one piece".to_owned()));
        }
        if at("MOUNT_POINT") != at("MOUNT_PARENT") + 8 {
            return Err(BtfError::Missing("mount with mnt_parent, mnt_mountpoint in one piece".to_owned()));
        }
        if btf.member("cgroup", "self")?.offset != 0 {
            return Err(BtfError::Missing("cgroup that begins with its own css".to_owned()));
        }
        Ok(())
    }
}

/// What else the instructions depend on.
pub struct Numbers {
    /// BTF id of two plain words, or 0.
    pub cast_type: u64,
    /// The generation.
    pub generation: u32,
    /// Bytes of the arena, a power of two.
    pub arena: usize,
}

/// Writes the values into the instructions. Every placeholder gets one, so none can stay.
pub fn fill_in(object: &mut [u8], globals: &Globals, numbers: &Numbers) -> Result<(), String> {
    let mut values: Vec<u64> = globals.values.iter().map(|(_, value)| *value).collect();
    let mut extra = [0; EXTRAS];
    for (which, address) in &globals.symbols {
        extra[*which as usize] = *address;
    }
    extra[Extra::CastType as usize] = numbers.cast_type;
    extra[Extra::Generation as usize] = numbers.generation.into();
    extra[Extra::ArenaWords as usize] = (numbers.arena as u64 - 1) & !3;
    extra[Extra::ArenaRanges as usize] = (numbers.arena as u64 - 1) & !7;
    values.extend(extra);
    // `r += number`, `r = number` and `r &= number` (BPF_ALU64 with BPF_ADD, BPF_MOV or BPF_AND and BPF_K,
    // include/uapi/linux/bpf.h). Sections of instructions begin at multiples of eight.
    let places = object
        .chunks_exact_mut(8)
        .filter(|code| matches!(code[0], 0x07 | 0xb7 | 0x57) && code[1] < 0x10 && code[2..4] == [0, 0]);
    for place in places {
        let number = i32::from_le_bytes([place[4], place[5], place[6], place[7]]);
        let Some(value) = number.checked_sub(PLACEHOLDER).and_then(|at| usize::try_from(at).ok()) else {
            continue;
        };
        let Some(value) = values.get(value) else { continue };
        let value = i32::try_from(value.cast_signed()).map_err(|e| format!("{value:#x}: {e}"))?;
        place[4..].copy_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

/// Gives the map of the arena another size in the object: `type`, `key_size`, `value_size`, `max_entries` and `map_flags`
/// of its definition (`struct bpf_map_def`), which occur once.
pub fn resize_arena(object: &mut [u8], arena: usize) -> Result<(), String> {
    /// `BPF_MAP_TYPE_ARRAY`.
    const ARRAY: u32 = 2;
    /// `BPF_F_MMAPABLE`.
    const MAPPABLE: u32 = 1 << 10;
    let definition = |bytes: usize| -> Result<Vec<u8>, String> {
        let size = u32::try_from(bytes + limits::ARENA_TAIL).map_err(|e| e.to_string())?;
        Ok([ARRAY, 4, size, 1, MAPPABLE].iter().flat_map(|word| word.to_le_bytes()).collect())
    };
    let (built, wanted) = (definition(limits::ARENA)?, definition(arena)?);
    let at: Vec<usize> =
        (0..object.len()).step_by(4).filter(|at| object[*at..].starts_with(&built)).collect();
    let [at] = at[..] else { return Err(format!("the object has {} definitions of the arena", at.len())) };
    object[at..at + wanted.len()].copy_from_slice(&wanted);
    Ok(())
}

/// Makes of the numbers that stand for maps of one entry references to their values. An instruction that loads 64 bits
/// (`BPF_LD | BPF_IMM | BPF_DW`) is two long; the kernel wants the map's descriptor in the first and the place within the
/// value in the second. Returns how many places that were.
pub fn fill_in_maps(object: &mut [u8], maps: &[(Single, RawFd)]) -> usize {
    const LOAD: u8 = 0x18;
    /// `BPF_PSEUDO_MAP_VALUE` in the upper half of the register byte (include/uapi/linux/bpf.h).
    const MAP_VALUE: u8 = 2 << 4;
    let mut count = 0;
    for at in (0..object.len().saturating_sub(15)).step_by(8) {
        let code = &mut object[at..at + 16];
        if code[0] != LOAD || code[1] >= 0x10 || code[2..4] != [0, 0] || code[8..] != [0; 8] {
            continue;
        }
        let number = i32::from_le_bytes([code[4], code[5], code[6], code[7]]);
        let Some((_, fd)) = maps.iter().find(|(single, _)| single.placeholder() == number) else { continue };
        code[1] |= MAP_VALUE;
        code[4..8].copy_from_slice(&fd.to_le_bytes());
        count += 1;
    }
    count
}

/// The address of a symbol in the text of `/proc/kallsyms`; hidden addresses are shown as zero. A name
/// that occurs twice could be another one's.
fn symbol_address(kallsyms: &str, symbol: &str) -> Option<u64> {
    let mut found = kallsyms.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next()?;
        (words.nth(1)? == symbol).then(|| u64::from_str_radix(address, 16).ok()).flatten()
    });
    found.next().filter(|_| found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::{Globals, Numbers, fill_in, fill_in_maps, resize_arena, symbol_address};
    use enforcer_common::limits;
    use enforcer_common::offsets::{Extra, FIELDS, Index, PLACEHOLDER, Single};

    #[test]
    fn maps_of_one_entry_are_referred_to_by_descriptor() {
        let load = |number: i32, second: i32| {
            [&[0x18, 3, 0, 0], &number.to_le_bytes()[..], &[0; 4], &second.to_le_bytes()[..]].concat()
        };
        let maps = [(Single::Gate, 17), (Single::Moves, 18)];
        let mut object = [
            load(Single::Moves.placeholder(), 0),
            vec![0; 8],
            load(Single::Gate.placeholder(), 0),
            load(Single::Gate.placeholder(), 1),
            load(Single::Arena.placeholder(), 0),
            load(5, 0),
        ]
        .concat();
        let before = object.clone();
        assert_eq!(fill_in_maps(&mut object, &maps), 2);
        assert_eq!(object[..16], [&[0x18, 0x23, 0, 0, 18, 0, 0, 0][..], &[0; 8]].concat());
        assert_eq!(object[24..40], [&[0x18, 0x23, 0, 0, 17, 0, 0, 0][..], &[0; 8]].concat());
        assert_eq!(object[40..], before[40..]);
        assert_eq!(fill_in_maps(&mut object, &maps), 0);
        assert_eq!(fill_in_maps(&mut [], &maps), 0);
    }

    #[test]
    fn placeholders_become_numbers_and_nothing_else_does() {
        let values = FIELDS.iter().map(|field| (field.global, 0)).collect();
        let symbols = vec![(Extra::RenameLock, 0xffff_ffff_8100_0020)];
        let mut globals = Globals { values, symbols, tagged_paths: false };
        globals.values[Index::TASK_MM as usize].1 = 0x123;
        assert_eq!(globals.values[Index::TASK_MM as usize].0, "TASK_MM");
        let code = |operation: u8, number: i32| [&[operation, 3, 0, 0], &number.to_le_bytes()[..]].concat();
        let mut object = [
            code(0x07, PLACEHOLDER + Index::TASK_MM as i32),
            code(0xb7, Extra::RenameLock.placeholder()),
            code(0xb7, Extra::Generation.placeholder()),
            code(0xb7, Single::Moves.placeholder()),
            code(0x18, PLACEHOLDER),
            code(0x57, Extra::ArenaWords.placeholder()),
            code(0x57, Extra::ArenaRanges.placeholder()),
        ]
        .concat();
        let numbers = |generation| Numbers { cast_type: 9, generation, arena: 1 << 26 };
        fill_in(&mut object, &globals, &numbers(7)).expect("all fit");
        assert_eq!(object[..8], code(0x07, 0x123));
        assert_eq!(object[8..16], code(0xb7, 0x8100_0020_u32.cast_signed()));
        assert_eq!(object[16..24], code(0xb7, 7));
        assert_eq!(object[24..32], code(0xb7, Single::Moves.placeholder()));
        assert_eq!(object[32..40], code(0x18, PLACEHOLDER));
        assert_eq!(object[40..48], code(0x57, 0x3ff_fffc));
        assert_eq!(object[48..], code(0x57, 0x3ff_fff8));
        fill_in(&mut [code(0xb7, Extra::Generation.placeholder())].concat(), &globals, &numbers(u32::MAX))
            .expect_err("larger than an instruction takes");
    }

    #[test]
    fn the_arena_gets_its_size_where_it_is_defined_and_only_if_that_is_clear() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let built = words(&[2, 4, limits::ARENA as u32 + 64, 1, 1 << 10]);
        let mut object = [words(&[7, 2, 4]), built.clone(), words(&[0, 0])].concat();
        resize_arena(&mut object, 1 << 24).expect("one definition");
        assert_eq!(object, [words(&[7, 2, 4, 2, 4, (1 << 24) + 64, 1, 1 << 10, 0, 0])].concat());
        resize_arena(&mut object, 1 << 24).expect_err("none is left");
        resize_arena(&mut built.repeat(2), 1 << 24).expect_err("two");
    }

    #[test]
    fn a_symbol_is_found_by_its_whole_name() {
        let text =
            "0000000000000000 d hidden\nffffffff81000010 D rename_lock_x\nffffffff81000020 D rename_lock\n";
        assert_eq!(symbol_address(text, "rename_lock"), Some(0xffff_ffff_8100_0020));
        assert_eq!(symbol_address(text, "hidden"), Some(0));
        assert_eq!(symbol_address(text, "mount_lock"), None);
        assert_eq!(symbol_address(&text.repeat(2), "rename_lock"), None);
    }
}
