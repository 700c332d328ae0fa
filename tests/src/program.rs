//! A program whose very first system call is an attack: no libc, no linker, no start-up code.

/// An ELF program of a few bytes: opens `path` for reading and exits with 40, or with 40 plus the
/// error's number. Nothing of it runs before that call.
pub fn first_call(path: &str) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 64 + 56;
    #[rustfmt::skip]
    let code: [u8; 38] = [
        0xb8, 0x02, 0x00, 0x00, 0x00,             // mov eax, 2 (open)
        0x48, 0x8d, 0x3d, 0x1a, 0x00, 0x00, 0x00, // lea rdi, [rip + 26]: what follows the code
        0x31, 0xf6,                               // xor esi, esi (O_RDONLY)
        0x31, 0xd2,                               // xor edx, edx
        0x0f, 0x05,                               // syscall
        0x85, 0xc0,                               // test eax, eax
        0x79, 0x04,                               // jns +4
        0xf7, 0xd8,                               // neg eax
        0xeb, 0x02,                               // jmp +2
        0x31, 0xc0,                               // xor eax, eax
        0x8d, 0x78, 0x28,                         // lea edi, [rax + 40]
        0xb8, 0x3c, 0x00, 0x00, 0x00,             // mov eax, 60 (exit)
        0x0f, 0x05,                               // syscall
    ];
    let size = (HEADERS + code.len() + path.len() + 1) as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_X86_64, version 1; entry; program headers at 64; no sections; sizes and counts.
    elf.extend([2u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(1u32.to_le_bytes());
    elf.extend([BASE + HEADERS as u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // PT_LOAD, readable and executable, the whole file at BASE.
    elf.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend([0, BASE, BASE, size, size, 4096].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(code);
    elf.extend(path.as_bytes());
    elf.push(0);
    elf
}

/// A 32-bit program of a few bytes: makes the system call `number` of the 32-bit table with one argument and zeros,
/// and exits with 40, or with 40 plus the error's number.
pub fn narrow_call(number: u32, argument: u32) -> Vec<u8> {
    const BASE: u32 = 0x40_0000;
    const HEADERS: u32 = 52 + 32;
    let mut code = vec![0xb8]; // mov eax, number
    code.extend(number.to_le_bytes());
    code.push(0xbb); // mov ebx, argument
    code.extend(argument.to_le_bytes());
    #[rustfmt::skip]
    code.extend([
        0x31, 0xc9,                   // xor ecx, ecx
        0x31, 0xd2,                   // xor edx, edx
        0x31, 0xf6,                   // xor esi, esi
        0xcd, 0x80,                   // int 0x80
        0x85, 0xc0,                   // test eax, eax
        0x79, 0x04,                   // jns +4
        0xf7, 0xd8,                   // neg eax
        0xeb, 0x02,                   // jmp +2
        0x31, 0xc0,                   // xor eax, eax
        0x8d, 0x58, 0x28,             // lea ebx, [eax + 40]
        0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1 (exit)
        0xcd, 0x80,                   // int 0x80
    ]);
    let size = HEADERS + code.len() as u32;
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, EM_386, version 1; entry; program headers at 52; no sections; sizes and counts.
    elf.extend([2u16, 3].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend([1, BASE + HEADERS, 52, 0, 0].iter().flat_map(|word: &u32| word.to_le_bytes()));
    elf.extend([52u16, 32, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // PT_LOAD, the whole file at BASE, readable and executable.
    elf.extend([1, 0, BASE, BASE, size, size, 5, 4096].iter().flat_map(|word: &u32| word.to_le_bytes()));
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::first_call;
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    #[test]
    fn the_first_call_says_how_it_went() {
        let run = |path: &str| {
            let program =
                std::env::temp_dir().join(format!("first-call-{}{}", std::process::id(), path.len()));
            fs::write(&program, first_call(path)).expect("write");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
            let code = Command::new(&program).status().expect("run").code();
            fs::remove_file(program).expect("remove");
            code
        };
        assert_eq!(run("/dev/null"), Some(40));
        assert_eq!(run("/no/such/file"), Some(40 + libc::ENOENT));
    }
}
