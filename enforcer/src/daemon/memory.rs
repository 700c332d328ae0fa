//! Memory that many policies have taken goes back to the system.

use super::core::Core;
use std::time::Instant;

impl Core {
    /// Lets go of what nobody has asked for lately.
    pub(crate) fn rest(&mut self) {
        if self.numbers.rest(Instant::now()) > 0 {
            give_back();
        }
    }

    /// Lets go of what reading records took, where none came for a while. Called more often than the canary makes some.
    pub(crate) fn rest_between_records(&mut self) {
        if self.enforcement.rest() {
            give_back();
        }
    }
}

/// Hands memory to the kernel, since a daemon rests most of the time: what was freed, which the allocator keeps
/// otherwise, and pages of the program itself, of which starting and loading have used many that nothing else does.
pub(super) fn give_back() {
    unmap_program();
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and touches nothing but what is free in the allocator's own books.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of the program's file, which are the file's own: those that are used come back one by one.
fn unmap_program() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    for (start, len) in pages_of_files(&maps) {
        let Ok(at) = usize::try_from(start) else { continue };
        // SAFETY: nothing was ever written there, so what is read again from the file is the same (madvise(2),
        // MADV_DONTNEED on a private mapping of a file).
        let _ = unsafe { libc::madvise(at as *mut libc::c_void, len, libc::MADV_DONTNEED) };
    }
}

/// Mappings of files, read-only and without a page of their own: start and length.
fn pages_of_files(smaps: &str) -> Vec<(u64, usize)> {
    let mut found: Vec<(u64, usize)> = Vec::new();
    let mut current: Option<(u64, usize)> = None;
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [range, access, _, _, inode, ..] = words[..]
            && let Some((start, end)) = range.split_once('-')
            && let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            let file = inode != "0" && matches!(access, "r-xp" | "r--p");
            current = file.then_some((start, (end - start) as usize));
        } else if let ["Anonymous:", "0", "kB"] = words[..] {
            // Relocated pages are read-only too, but not the file's.
            found.extend(current.take());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_are_as_in_their_file_are_let_go_of() {
        let one = |range: &str, access: &str, inode: &str, anonymous: &str| {
            format!(
                "{range} {access} 00000000 fe:00 {inode}    /usr/sbin/enforcer\nSize:      8 kB\n\
                 Anonymous:             {anonymous} kB\nVmFlags: rd mr mw me sd\n"
            )
        };
        let smaps = [
            one("1000-3000", "r-xp", "7", "0"),
            one("3000-5000", "r--p", "7", "0"),
            one("5000-6000", "r--p", "7", "4"),
            one("6000-7000", "rw-p", "7", "0"),
            one("7000-8000", "r-xp", "0", "0"),
            one("8000-9000", "r--s", "7", "0"),
        ]
        .concat();
        assert_eq!(pages_of_files(&smaps), [(0x1000, 0x2000), (0x3000, 0x2000)]);
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        let text = "as before".to_owned();
        unmap_program();
        assert_eq!(text, "as before");
    }
}
