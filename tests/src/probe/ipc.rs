//! Objects that all processes of an IPC namespace see: System V's by key and number, POSIX queues by name.

use super::{
    Act, Args,
    sys::{Arg, call, fd, sys},
};
use std::io;

pub(super) const ACTS: &[(&str, Act)] = &[
    ("shm-make", |a| sys!(SYS_shmget, key(a)?, 4096, libc::IPC_CREAT | 0o666).map(drop)),
    ("shm-get", |a| sys!(SYS_shmget, key(a)?, 4096, 0).map(drop)),
    ("shm-attach", |a| sys!(SYS_shmat, key(a)?, 0, libc::SHM_RDONLY).map(drop)),
    ("shm-stat", |a| control(libc::SYS_shmctl, a, libc::IPC_STAT)),
    ("shm-stat-any", |a| control(libc::SYS_shmctl, a, 15)),
    ("shm-lock", |a| control(libc::SYS_shmctl, a, 11)),
    ("shm-remove", |a| control(libc::SYS_shmctl, a, libc::IPC_RMID)),
    ("msg-get", |a| sys!(SYS_msgget, key(a)?, 0).map(drop)),
    ("msg-send", |a| send(key(a)?)),
    ("msg-receive", |a| receive(key(a)?)),
    ("msg-stat", |a| control(libc::SYS_msgctl, a, libc::IPC_STAT)),
    ("msg-stat-any", |a| control(libc::SYS_msgctl, a, 13)),
    ("msg-remove", |a| control(libc::SYS_msgctl, a, libc::IPC_RMID)),
    ("sem-get", |a| sys!(SYS_semget, key(a)?, 1, 0).map(drop)),
    ("sem-op", |a| count(key(a)?)),
    ("sem-value", |a| sys!(SYS_semctl, key(a)?, 0, 12, 0).map(drop)),
    ("sem-set", |a| sys!(SYS_semctl, key(a)?, 0, 16, 7).map(drop)),
    ("sem-stat-any", |a| semaphores(a, 20)),
    ("sem-remove", |a| sys!(SYS_semctl, key(a)?, 0, libc::IPC_RMID, 0).map(drop)),
    ("ipc-totals", |_| sys!(SYS_shmctl, 0, 14, &mut [0u8; 256][..]).map(drop)),
    ("ipc-own", own),
    ("mq-open", |a| fd!(SYS_mq_open, &a.text(0)?, libc::O_RDWR, 0, 0).map(drop)),
    ("mq-create", |a| fd!(SYS_mq_open, &a.text(0)?, libc::O_RDWR | libc::O_CREAT, 0o600, 0).map(drop)),
    ("mq-unlink", |a| sys!(SYS_mq_unlink, &a.text(0)?).map(drop)),
];

/// A key or a number.
fn key(args: &Args<'_>) -> io::Result<i32> {
    args.number(0)
}

fn control(number: libc::c_long, args: &Args<'_>, command: i32) -> io::Result<()> {
    let mut answer = [0u8; 256];
    call(number, &mut [Arg::from(key(args)?), Arg::from(command), Arg::from(&mut answer[..])]).map(drop)
}

fn semaphores(args: &Args<'_>, command: i32) -> io::Result<()> {
    sys!(SYS_semctl, key(args)?, 0, command, &mut [0u8; 256][..]).map(drop)
}

/// A message of one byte, of type 1.
fn send(queue: i32) -> io::Result<()> {
    let message = [1u64.to_ne_bytes(), *b"x\0\0\0\0\0\0\0"].concat();
    sys!(SYS_msgsnd, queue, &message, 1, libc::IPC_NOWAIT).map(drop)
}

fn receive(queue: i32) -> io::Result<()> {
    sys!(SYS_msgrcv, queue, &mut [0u8; 16][..], 8, 0, libc::IPC_NOWAIT).map(drop)
}

/// Adds one.
fn count(set: i32) -> io::Result<()> {
    // struct sembuf: number, operation, flags
    let step = [0i16, 1, 0].map(i16::to_ne_bytes).concat();
    sys!(SYS_semop, set, &step, 1).map(drop)
}

/// One of each kind, made, used and removed, in a child too.
fn own(_: &Args<'_>) -> io::Result<()> {
    const NEW: i32 = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    let memory = sys!(SYS_shmget, libc::IPC_PRIVATE, 4096, NEW)? as i32;
    let queue = sys!(SYS_msgget, libc::IPC_PRIVATE, NEW)? as i32;
    let set = sys!(SYS_semget, libc::IPC_PRIVATE, 1, NEW)? as i32;
    let all = || {
        sys!(SYS_shmat, memory, 0, 0)?;
        send(queue)?;
        receive(queue)?;
        count(set)
    };
    let done = all().and_then(|()| super::sys::in_child(all));
    sys!(SYS_shmctl, memory, libc::IPC_STAT, &mut [0u8; 256][..])?;
    sys!(SYS_shmctl, memory, libc::IPC_RMID, 0)?;
    sys!(SYS_msgctl, queue, libc::IPC_RMID, 0)?;
    sys!(SYS_semctl, set, 0, libc::IPC_RMID, 0)?;
    done
}
