//! What can be done to an object, one bit each. Every bit has a name, or it does not build.

/// Operations on files: the bits of [`crate::map::Masks`] in a path automaton.
pub mod file {
    /// Open for reading.
    pub const READ: u16 = 1 << 0;
    /// Open for writing or appending.
    pub const WRITE: u16 = 1 << 1;
    /// Bring a name into existence: file, directory, symbolic link, device, socket, link or rename target.
    pub const CREATE: u16 = 1 << 2;
    /// Remove a name: unlink, rmdir, rename source, or a target that is replaced.
    pub const DELETE: u16 = 1 << 3;
    /// Give a name up by renaming it.
    pub const RENAME: u16 = 1 << 4;
    /// Give an object a further name.
    pub const LINK: u16 = 1 << 5;
    /// Change the length. Granted and refused together with [`WRITE`], and separately.
    pub const TRUNCATE: u16 = 1 << 6;
    /// Change mode, owner, times, extended attributes or flags.
    pub const METADATA: u16 = 1 << 7;
    /// Execute as a program or script.
    pub const EXEC: u16 = 1 << 8;
    /// Map executable: shared objects and the ELF interpreter.
    pub const LOAD: u16 = 1 << 9;
    /// Read a directory.
    pub const LIST: u16 = 1 << 10;

    /// Connect or send to the unix socket of that name. A name in the abstract namespace stands as a path
    /// that begins with [`ABSTRACT`].
    pub const CONNECT: u16 = 1 << 11;
    /// Execute with whatever arguments. Goes with [`EXEC`], unless a rule is about arguments: then they are judged
    /// once the program has been loaded.
    pub const ANY_ARGUMENTS: u16 = 1 << 12;

    /// What stands, instead of the kernel's zero byte, before an abstract name: automata know no zero.
    pub const ABSTRACT: u8 = 1;

    /// Every operation on a file itself.
    pub const ALL: u16 = CONNECT - 1;

    /// Every operation with the name that policies and events use for it.
    pub const NAMES: [(u16, &str); 13] = [
        (READ, "read"),
        (WRITE, "write"),
        (CREATE, "create"),
        (DELETE, "delete"),
        (RENAME, "rename"),
        (LINK, "link"),
        (TRUNCATE, "truncate"),
        (METADATA, "metadata"),
        (EXEC, "exec"),
        (LOAD, "load"),
        (LIST, "list"),
        (CONNECT, "connect"),
        (ANY_ARGUMENTS, "any-arguments"),
    ];
    const _: () = crate::access::assert_names(&NAMES);
}

/// Operations on the network: the bits of [`crate::map::Masks`] in a port table.
pub mod net {
    /// Connect, or send to an address without connecting.
    pub const CONNECT: u16 = 1 << 0;
    /// Bind a local address, or listen on it.
    pub const BIND: u16 = 1 << 1;

    /// Every operation with the name that policies and events use for it.
    pub const NAMES: [(u16, &str); 2] = [(CONNECT, "connect"), (BIND, "bind")];
    const _: () = crate::access::assert_names(&NAMES);
}

/// The bits must be 1, 2, 4 … without a gap, so that a bit without a name cannot exist.
const fn assert_names(names: &[(u16, &str)]) {
    let mut i = 0;
    while i < names.len() {
        assert!(names[i].0 == 1 << i, "an access bit has no name");
        i += 1;
    }
}

/// The bit of the operation called `name` in `names`.
pub fn named(names: &[(u16, &'static str)], name: &str) -> Option<u16> {
    names.iter().find(|(_, n)| *n == name).map(|(bit, _)| *bit)
}
