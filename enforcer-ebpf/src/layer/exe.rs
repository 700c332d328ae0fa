//! The path of the running task's executable, by two walks of bounded length and without memory in between.

use crate::{object, subject, verifier::bound};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::ptr::write_volatile;

/// Bytes for the path of the executable.
pub(super) const EXE: usize = 512;
/// Directories and mounts above the executable that are followed.
const STEPS: u32 = 16;

/// Where a walk from the executable up to the root of its mount namespace stands.
struct Climb {
    dentry: u64,
    /// `struct mount *`.
    mount: u64,
}

impl Climb {
    #[inline(always)]
    fn begin(task: *const u8) -> Self {
        let exe = object::pointer(object::pointer(task, &object::TASK_MM), &object::MM_EXE);
        let at = exe.wrapping_add(object::FILE_PATH.get());
        let mount = object::pointer(at, &object::PATH_MOUNT) as u64;
        Self {
            dentry: object::pointer(at, &object::PATH_DENTRY) as u64,
            mount: mount.wrapping_sub(object::MOUNT_VFSMOUNT.get() as u64),
        }
    }

    /// One step up. `None`: it cannot be told.
    #[inline(always)]
    fn step(&mut self) -> Option<Step> {
        let vfsmount = self.mount + object::MOUNT_VFSMOUNT.get() as u64;
        let root = word(vfsmount + object::VFSMOUNT_ROOT.get() as u64)?;
        if self.dentry != root {
            let found = self.dentry;
            self.dentry = word(found + object::DENTRY_PARENT.get() as u64)?;
            return Some(Step::Component(found));
        }
        let parent = word(self.mount + object::MOUNT_PARENT.get() as u64)?;
        if parent == self.mount {
            return Some(Step::End);
        }
        self.dentry = word(self.mount + object::MOUNT_POINT.get() as u64)?;
        self.mount = parent;
        Some(Step::Crossed)
    }
}

enum Step {
    /// The dentry of a component.
    Component(u64),
    /// From a mount to where it lies.
    Crossed,
    /// There is nothing above.
    End,
}

/// Eight bytes at a plain address.
#[inline(always)]
fn word(address: u64) -> Option<u64> {
    let mut value = 0u64;
    // SAFETY: the helper fills the value or says that it did not.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 8, address as *const _) };
    if failed == 0 { Some(value) } else { None }
}

#[inline(always)]
fn length(dentry: u64) -> Option<u64> {
    let mut value = 0u32;
    let at = dentry + object::DENTRY_LEN.get() as u64;
    // SAFETY: as in `word`.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 4, at as *const _) };
    if failed == 0 && value <= 255 { Some(value.into()) } else { None }
}

/// Bytes of the executable's path, or 0 if it cannot be told or does not fit. Verified by itself: what the way up is
/// known to be must not be multiplied with what the second way is.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn exe_length() -> u64 {
    let mut total = 0;
    let mut climb = Climb::begin(subject::task());
    let mut i = 0;
    while i < STEPS {
        match climb.step() {
            Some(Step::Component(dentry)) => match length(dentry) {
                Some(len) => total += len + 1,
                None => return 0,
            },
            Some(Step::Crossed) => {}
            Some(Step::End) => return if total > EXE as u64 { 0 } else { total },
            None => return 0,
        }
        i += 1;
    }
    0
}

/// Writes the executable's path to `to`, which is as long as [`super::Refusal`] says. The way up is gone twice, first for the
/// length: there is no memory for the components. Returns 0 if the path cannot be told or does not fit.
#[inline(always)]
pub(super) unsafe fn name_exe(to: *mut u8, task: *const u8) -> u64 {
    let total = exe_length();
    let mut end = total;
    let mut climb = Climb::begin(task);
    let mut i = 0;
    while i < STEPS {
        let dentry = match climb.step() {
            Some(Step::Component(dentry)) => dentry,
            Some(Step::Crossed) => 0,
            Some(Step::End) => break,
            None => return 0,
        };
        i += 1;
        if dentry == 0 {
            continue;
        }
        let (Some(len), Some(name)) = (length(dentry), word(dentry + object::DENTRY_NAME.get() as u64))
        else {
            return 0;
        };
        // Renamed meanwhile.
        if len + 1 > end {
            return 0;
        }
        // The same range in every round, so that the verifier sees the same state again.
        end = bound::<{ 2 * EXE as i32 - 1 }>(end - (len + 1));
        let at = bound::<{ EXE as i32 - 1 }>(end) as usize;
        let len = bound::<255>(len);
        // SAFETY: there is room for the longest name behind the last place.
        unsafe {
            write_volatile(to.add(at), b'/');
            if bpf_probe_read_kernel(to.add(at).add(1).cast(), len as u32, name as *const _) != 0 {
                return 0;
            }
        }
    }
    if end == 0 { total } else { 0 }
}
