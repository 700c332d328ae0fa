//! What the programs take for constants on this kernel.

use super::btf::{Btf, BtfError};
use enforcer_common::offsets::{Extra, FIELDS, PLACEHOLDER, SYMBOLS};

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
        if at("MOUNT_POINT") != at("MOUNT_PARENT") + 8 {
            return Err(BtfError::Missing("mount with mnt_parent, mnt_mountpoint in one piece".to_owned()));
        }
        if btf.member("cgroup", "self")?.offset != 0 {
            return Err(BtfError::Missing("cgroup that begins with its own css".to_owned()));
        }
        Ok(())
    }
}

/// Writes the values into the instructions. Every placeholder gets one, so none can stay.
pub fn fill_in(object: &mut [u8], globals: &Globals, cast_type: u64, generation: u64) -> Result<(), String> {
    let mut values: Vec<u64> = globals.values.iter().map(|(_, value)| *value).collect();
    let mut extra = [0; 4];
    for (which, address) in &globals.symbols {
        extra[*which as usize] = *address;
    }
    extra[Extra::CastType as usize] = cast_type;
    extra[Extra::Generation as usize] = generation;
    values.extend(extra);
    // `r += number` and `r = number` (BPF_ALU64 with BPF_ADD or BPF_MOV and BPF_K, include/uapi/linux/bpf.h). Sections of
    // instructions begin at multiples of eight.
    let places = object
        .chunks_exact_mut(8)
        .filter(|code| matches!(code[0], 0x07 | 0xb7) && code[1] < 0x10 && code[2..4] == [0, 0]);
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
    use super::{Globals, fill_in, symbol_address};
    use enforcer_common::offsets::{Extra, FIELDS, Index, PLACEHOLDER};

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
            code(0xb7, Extra::Generation.placeholder() + 1),
            code(0x18, PLACEHOLDER),
        ]
        .concat();
        fill_in(&mut object, &globals, 9, 7).expect("all fit");
        assert_eq!(object[..8], code(0x07, 0x123));
        assert_eq!(object[8..16], code(0xb7, 0x8100_0020_u32.cast_signed()));
        assert_eq!(object[16..24], code(0xb7, 7));
        assert_eq!(object[24..32], code(0xb7, Extra::Generation.placeholder() + 1));
        assert_eq!(object[32..], code(0x18, PLACEHOLDER));
        fill_in(&mut [code(0xb7, Extra::Generation.placeholder())].concat(), &globals, 9, u64::MAX >> 1)
            .expect_err("larger than an instruction takes");
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
