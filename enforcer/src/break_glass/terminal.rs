//! Whether a process sits at a terminal: it has a controlling one, and its standard input is that one. It shows that
//! no service, timer or web hook asks, which have none; it does not show that a person reads there, since root can
//! make a terminal for any program.

use serde::Serialize;
use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
};

/// A terminal at which a process sits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Terminal {
    /// Its name, `/dev/tty1`.
    pub name: String,
}

/// `/dev/tty` and `/dev/console` stand for the controlling terminal, whichever that is
/// (Documentation/admin-guide/devices.txt).
const STANDS_FOR: [(u64, u64); 2] = [(5, 0), (5, 1)];

/// The terminal of a process; `None`: it has none, or another one as its standard input, or it has gone.
pub fn of(pid: i32) -> Option<Terminal> {
    let controlling = controlling(&fs::read(format!("/proc/{pid}/stat")).ok()?)?;
    let input = format!("/proc/{pid}/fd/0");
    let meta = fs::metadata(&input).ok().filter(|meta| meta.file_type().is_char_device())?;
    let device = (nix::sys::stat::major(meta.rdev()), nix::sys::stat::minor(meta.rdev()));
    let same = device == controlling || STANDS_FOR.contains(&device);
    let name = crate::event::text::escape(fs::read_link(&input).ok()?.as_os_str().as_bytes());
    same.then_some(Terminal { name })
}

/// Major and minor number of the controlling terminal, in the text of /proc/PID/stat (proc(5): `tty_nr` has the minor
/// number in bits 31 to 20 and 7 to 0, the major one in bits 15 to 8).
fn controlling(stat: &[u8]) -> Option<(u64, u64)> {
    // The program's name may contain anything; it ends at the last bracket.
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let number: i32 = fields.split_ascii_whitespace().nth(4)?.parse().ok()?;
    let bits = u64::from(number.cast_unsigned());
    (bits != 0).then_some((bits >> 8 & 0xff, bits & 0xff | bits >> 12 & 0xf_ff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controlling_terminal_is_read_whatever_the_program_is_called() {
        assert_eq!(controlling(b"7 (sh) S 1 7 7 34816 7 0"), Some((136, 0)));
        assert_eq!(controlling(b"7 (x) S 9 9) R 1 7 7 1025 7 0"), Some((4, 1)));
        // 136:300, a pseudo terminal with a large number.
        assert_eq!(controlling(b"7 (sh) S 1 7 7 1083436 7 0"), Some((136, 300)));
        assert_eq!(controlling(b"7 (sh) S 1 7 7 0 -1 0"), None);
        assert_eq!(controlling(b"nonsense"), None);
    }

    #[test]
    fn a_process_whose_input_is_no_terminal_has_none() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stdin(std::process::Stdio::null())
            .spawn()
            .expect("sleep");
        assert_eq!(of(child.id().cast_signed()), None);
        child.kill().and_then(|()| child.wait()).expect("ended");
    }
}
