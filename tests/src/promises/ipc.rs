//! Shared memory, queues and semaphores of System V and POSIX: a session's own, and nobody else's.

use super::{floor::almighty, tree};
use crate::{
    cases, ensure,
    harness::{Outcome, Test, outside_all},
    promise::{self as check, Attempt, Denial},
};

cases!(ipc:
    objects_of_outsiders_are_refused,
    objects_of_the_session_are_its_own_business,
    objects_of_another_session_are_refused,
    queues_of_outsiders_are_neither_opened_nor_removed_nor_made,
);

/// One object of each kind, made by this process: memory, queue, semaphores.
struct Objects([i32; 3]);

impl Objects {
    fn new(key: i32) -> Outcome<Self> {
        const NEW: i32 = libc::IPC_CREAT | libc::IPC_EXCL | 0o666;
        // SAFETY: numbers only.
        let made =
            unsafe { [libc::shmget(key, 4096, NEW), libc::msgget(key, NEW), libc::semget(key, 1, NEW)] };
        ensure!(made.iter().all(|number| *number >= 0), "{key}: {}", std::io::Error::last_os_error());
        let objects = Self(made);
        ensure!(outside_all(&[format!("msg-send {}", made[1])])? == ["ok"], "nothing can be sent");
        Ok(objects)
    }

    fn attempts(&self, key: i32) -> Vec<Attempt> {
        let Self([memory, queue, set]) = self;
        let denial = || Denial::floor("ipc");
        let by_mode = [
            format!("shm-get {key}"),
            format!("shm-attach {memory}"),
            format!("shm-stat {memory}"),
            format!("msg-get {key}"),
            format!("msg-stat {queue}"),
            format!("msg-receive {queue}"),
            format!("msg-send {queue}"),
            format!("sem-get {key}"),
            format!("sem-op {set}"),
            format!("sem-value {set}"),
            format!("sem-set {set}"),
        ];
        // What asks for the permission of a mode first is refused as that permission is.
        let mut attempts: Vec<Attempt> =
            by_mode.map(|act| Attempt::new(act, denial()).errno("EACCES")).into();
        let others = [
            // The index is the low half of the number.
            format!("shm-stat-any {}", memory & 0x7fff),
            format!("msg-stat-any {}", queue & 0x7fff),
            format!("sem-stat-any {}", set & 0x7fff),
            format!("shm-lock {memory}"),
            format!("shm-remove {memory}"),
            format!("msg-remove {queue}"),
            format!("sem-remove {set}"),
        ];
        attempts.extend(others.map(|act| Attempt::new(act, denial())));
        attempts
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let Self([memory, queue, set]) = self;
        // SAFETY: numbers and no memory. What an act has removed is not there.
        unsafe {
            libc::shmctl(*memory, libc::IPC_RMID, std::ptr::null_mut());
            libc::msgctl(*queue, libc::IPC_RMID, std::ptr::null_mut());
            libc::semctl(*set, 0, libc::IPC_RMID);
        }
    }
}

fn objects_of_outsiders_are_refused(t: &mut Test) -> Outcome {
    tree(t)?;
    let control = Objects::new(4711)?;
    check::control(&control.attempts(4711))?;
    drop(control);
    let objects = Objects::new(4712)?;
    let twins = ["ipc-own".to_owned(), "ipc-totals".to_owned()];
    check::refused(t, &almighty(t)?, &twins, &objects.attempts(4712))
}

fn objects_of_the_session_are_its_own_business(t: &mut Test) -> Outcome {
    tree(t)?;
    let twins = ["ipc-own".to_owned(), "ipc-own".to_owned(), "ipc-totals".to_owned()];
    check::allowed_outside(&twins)?;
    check::refused(t, &almighty(t)?, &twins, &[])
}

/// Also when the kernel uses the memory of an object again that belonged to the other session.
fn objects_of_another_session_are_refused(t: &mut Test) -> Outcome {
    tree(t)?;
    let other = almighty(t)?;
    let session = other.probe(&["shm-make 4713".to_owned()])?;
    ensure!(session.lines == ["ok"], "{:?}", session.lines);
    let attempts = [Attempt::new("shm-get 4713", Denial::floor("ipc")).errno("EACCES")];
    let outcome = check::control(&attempts)
        .and_then(|()| check::refused(t, &almighty(t)?, &["ipc-own".to_owned()], &attempts));
    // SAFETY: numbers and no memory.
    unsafe { libc::shmctl(libc::shmget(4713, 0, 0), libc::IPC_RMID, std::ptr::null_mut()) };
    outcome
}

fn queues_of_outsiders_are_neither_opened_nor_removed_nor_made(t: &mut Test) -> Outcome {
    tree(t)?;
    let made = outside_all(&["mq-create probe-theirs".to_owned()])?;
    ensure!(made == ["ok"], "{made:?}");
    let attempts = [
        // Its name lies in no namespace.
        Attempt::new("mq-open probe-theirs", Denial::floor("open").flagged("foreign")),
        Attempt::new("mq-create probe-new", Denial::floor("create")),
        Attempt::new("mq-unlink probe-theirs", Denial::floor("unlink")),
    ];
    check::control(&attempts)?;
    outside_all(&["mq-create probe-theirs".to_owned(), "mq-unlink probe-new".to_owned()])?;
    check::refused(t, &almighty(t)?, &["ipc-own".to_owned()], &attempts)?;
    let left = outside_all(&["mq-unlink probe-theirs".to_owned(), "mq-unlink probe-new".to_owned()])?;
    ensure!(left == ["ok", "ENOENT"], "{left:?}");
    Ok(())
}
