//! Lets the programs read kernel memory without a call where the kernel can.
//!
//! `bpf_rdonly_cast` (kernel/bpf/helpers.c, since 6.2) makes of an address a pointer that may be read; a
//! fault reads as zero. The verifier takes the call away, so a read costs one instruction instead of a
//! call of `bpf_probe_read_kernel`. rustc cannot name kernel functions: the object has a placeholder
//! where the function's id belongs.

use super::btf::Btf;

/// The kernel's ids for what the programs cast with and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// `bpf_rdonly_cast`.
    pub function: u32,
    /// `struct timespec64`, whose members are two plain words.
    pub words: u32,
}

impl Cast {
    /// What this kernel has; without it the programs read by calls.
    pub fn find(btf: &Btf<'_>) -> Option<Self> {
        let words = btf.structure_id("timespec64")?;
        let plain = btf.member("timespec64", "tv_sec").ok()?.offset == 0
            && btf.member("timespec64", "tv_nsec").ok()?.offset == 8;
        plain.then_some(())?;
        Some(Self { function: btf.function_id("bpf_rdonly_cast")?, words })
    }
}

/// `call 0x7fff0001`, as the programs have it (enforcer-ebpf/src/object.rs, `cast`).
const PLACEHOLDER: [u8; 8] = [0x85, 0, 0, 0, 0x01, 0, 0xff, 0x7f];
/// `BPF_PSEUDO_KFUNC_CALL` in the upper half of the register byte (include/uapi/linux/bpf.h).
const KERNEL_FUNCTION: u8 = 2 << 4;

/// Puts the function's id where the object has the placeholder. Returns how many places that were.
pub fn fill_in(object: &mut [u8], function: u32) -> usize {
    // Sections of instructions begin at multiples of eight.
    let places = object.chunks_exact_mut(8).filter(|instruction| **instruction == PLACEHOLDER);
    let mut count = 0;
    for place in places {
        place[1] = KERNEL_FUNCTION;
        place[4..].copy_from_slice(&function.to_le_bytes());
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::{PLACEHOLDER, fill_in};

    #[test]
    fn the_placeholder_becomes_a_call_of_the_kernels_function() {
        let mut object = [[0u8; 8], PLACEHOLDER, [0x95, 0, 0, 0, 0, 0, 0, 0], PLACEHOLDER].concat();
        assert_eq!(fill_in(&mut object, 0x0102_0304), 2);
        assert_eq!(object[8..16], [0x85, 0x20, 0, 0, 4, 3, 2, 1]);
        assert_eq!(object[16], 0x95);
        assert_eq!(fill_in(&mut object, 1), 0);
    }
}
