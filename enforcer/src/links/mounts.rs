//! What is mounted where: `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::collections::HashMap;

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// `s_dev`, in the kernel's encoding: major << 20 | minor.
    pub(super) device: u32,
    /// Whether hard links can be looked for there: neither the kernel's own nor somebody else's files.
    pub(super) local: bool,
}

/// File systems that keep files of this host.
const LOCAL: [&str; 13] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "f2fs", "zfs", "bcachefs", "vfat", "jfs",
    "reiserfs",
];

/// The mounts by the names that they are mounted at. Of several at one name the last is the one that is seen.
pub(super) fn parse(text: &[u8]) -> HashMap<Vec<u8>, Mount> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<(Vec<u8>, Mount)> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
    let device = major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?;
    let behind = fields.iter().position(|field| *field == b"-")?;
    let kind = std::str::from_utf8(fields.get(behind + 1)?).ok()?;
    Some((unescaped(fields.get(4)?), Mount { device, local: LOCAL.contains(&kind) }))
}

/// `\040` and its like as bytes (mangle_path(), fs/seq_file.c).
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let octal =
            |digits: &[u8]| -> Option<u8> { u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok() };
        match (byte, tail.get(..3).and_then(octal)) {
            (b'\\', Some(number)) => {
                out.push(number);
                rest = &tail[3..];
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_the_last_mount_counts() {
        let text = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                     23 22 0:21 / /proc rw - proc proc rw\n\
                     24 22 8:2 / /a\\040b rw master:1 shared:3 - xfs /dev/sdb rw\n\
                     25 24 0:33 / /a\\040b rw - tmpfs tmpfs rw\n\
                     nonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[b"/".as_slice()], Mount { device: 8 << 20 | 1, local: true });
        assert!(!mounts[b"/proc".as_slice()].local);
        assert_eq!(mounts[b"/a b".as_slice()], Mount { device: 33, local: true });
    }
}
