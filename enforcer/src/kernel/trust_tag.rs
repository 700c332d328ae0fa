//! Tells the verifier that the first argument of a global function is a trusted pointer.
//!
//! Newer kernels keep `f_path` of `struct file` in a union, and what is read through a union is not
//! trusted, so it may not be handed to the helpers of inode storage. As an argument with the BTF
//! declaration tag `arg:trusted` it is (`btf_prepare_func_args()`, kernel/bpf/btf.c, since 6.9).
//! rustc cannot write that tag, so it is added to the object's bytes.

use super::btf::tail;

/// Why the object cannot be tagged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the program object is not what was built: {0}")]
pub struct TagError(&'static str);

const FUNC: u32 = 12;
const DECL_TAG: u32 = 17;

/// The object with the tag on argument 0 of each of `functions`.
pub fn tag_trusted(mut object: Vec<u8>, functions: &[&str]) -> Result<Vec<u8>, TagError> {
    let (header, from, len) = section(&object, b".BTF\0")?;
    let btf = object.get(from..from + len).ok_or(TagError("section outside of the file"))?.to_vec();
    let head = u32_at(&btf, 4)? as usize;
    let part = |offset: usize, length: usize| -> Result<&[u8], TagError> {
        let from = head + u32_at(&btf, offset)? as usize;
        btf.get(from..from + u32_at(&btf, length)? as usize).ok_or(TagError("BTF ends early"))
    };
    let (types, strings) = (part(8, 12)?, part(16, 20)?);

    let mut tagged = types.to_vec();
    for function in functions {
        let id = function_id(types, strings, function)?;
        for value in [strings.len() as u32, DECL_TAG << 24, id, 0] {
            tagged.extend_from_slice(&value.to_le_bytes());
        }
    }
    let mut made = btf[..head].to_vec();
    let lengths = [0, tagged.len(), tagged.len(), strings.len() + b"arg:trusted\0".len()];
    for (i, value) in lengths.into_iter().enumerate() {
        made[8 + 4 * i..12 + 4 * i].copy_from_slice(&(value as u32).to_le_bytes());
    }
    made.extend(tagged);
    made.extend_from_slice(strings);
    made.extend_from_slice(b"arg:trusted\0");

    object.resize(object.len().next_multiple_of(8), 0);
    let at = object.len() as u64;
    object[header + 24..header + 32].copy_from_slice(&at.to_le_bytes());
    object[header + 32..header + 40].copy_from_slice(&(made.len() as u64).to_le_bytes());
    object.extend(made);
    Ok(object)
}

/// Header's place, offset and length of an ELF section (System V ABI, 64 bit).
fn section(object: &[u8], name: &[u8]) -> Result<(usize, usize, usize), TagError> {
    let headers = u64_at(object, 40)?;
    let (size, count, names) = (u16_at(object, 58)?, u16_at(object, 60)?, u16_at(object, 62)?);
    let names = u64_at(object, headers + names * size + 24)?;
    for i in 0..count {
        let header = headers + i * size;
        let label = names + u32_at(object, header)? as usize;
        if object.get(label..).is_some_and(|text| text.starts_with(name)) {
            return Ok((header, u64_at(object, header + 24)?, u64_at(object, header + 32)?));
        }
    }
    Err(TagError("no BTF section"))
}

fn function_id(types: &[u8], strings: &[u8], function: &str) -> Result<u32, TagError> {
    let (mut at, mut id) = (0, 1);
    while at < types.len() {
        let (name, info) = (u32_at(types, at)? as usize, u32_at(types, at + 4)?);
        let kind = info >> 24 & 0x1f;
        let text = strings.get(name..).and_then(|s| s.split(|b| *b == 0).next());
        if kind == FUNC && text == Some(function.as_bytes()) {
            return Ok(id);
        }
        at += 12 + tail(kind, info & 0xffff);
        id += 1;
    }
    Err(TagError("no such function"))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, TagError> {
    let four = bytes.get(at..at + 4).ok_or(TagError("ends early"))?;
    Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<usize, TagError> {
    let two = bytes.get(at..at + 2).ok_or(TagError("ends early"))?;
    Ok(usize::from(u16::from_le_bytes([two[0], two[1]])))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<usize, TagError> {
    Ok(u32_at(bytes, at)? as usize | (u32_at(bytes, at + 4)? as usize) << 32)
}
