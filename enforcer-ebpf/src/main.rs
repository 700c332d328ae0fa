//! The kernel side: one function per hook, all of one shape.
//!
//! hook → [`subject`] (whose task is this?) → [`object`] (what is touched?) → [`path`] or [`net`]
//! (what do the rules say?) → verdict → [`emit`] (record it) → errno.
//!
//! A hook first leaves for every task that is not an agent's. Whatever cannot be told is denied.
//! The verdict stands before the record is made, and nothing about the record changes it.
//!
//! Hooks do not look at the earlier programs' result: the trampoline of an LSM hook runs the next
//! program only while the result is zero (`invoke_bpf_mod_ret()`, arch/x86/net/bpf_jit_comp.c).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod call;
mod emit;
mod evidence;
mod gate;
mod hold;
mod hooks;
mod layer;
mod maps;
mod net;
mod object;
mod path;
mod proc;
mod subject;
mod terminal;
mod unix;
mod verifier;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel offers the helpers that these programs use to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
