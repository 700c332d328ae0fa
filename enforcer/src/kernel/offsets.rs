//! The values of the programs' globals on this kernel.

use super::btf::{Btf, BtfError};
use enforcer_common::offsets::{FIELDS, SYMBOLS};

/// What is set in the programs before they are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// Name and value.
    pub values: Vec<(&'static str, u64)>,
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
        for (global, symbol) in SYMBOLS {
            values.push((global, symbol_address(kallsyms, symbol).unwrap_or(0)));
        }
        let found = Self { values, tagged_paths };
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
    use super::symbol_address;

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
