//! One QEMU process: its devices, its ports, and the ways in which it ends.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::{
    cpio::Cpio,
    kernels::KernelImage,
    progress::{self, Ticker},
    rootfs::Rootfs,
};

/// How a guest's instructions are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    Emulated,
    /// Emulated CPUs take turns: see [`crate::console::is_emulators_fault`].
    InTurn,
    /// The clock counts instructions, so that two runs of a benchmark agree.
    Counted,
}

/// Where the guest's console goes.
pub(crate) enum Console {
    Log(PathBuf),
    Terminal,
}

/// Everything that one boot depends on.
pub(crate) struct Boot<'a> {
    pub(crate) kernel: &'a KernelImage,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) accel: Accel,
    /// A tar archive that is unpacked over the root file system.
    pub(crate) payload: &'a Path,
    /// A disk on which the guest returns its /share.
    pub(crate) returns: Option<&'a Path>,
    /// Further ext4 images, mounted read-only at a path.
    pub(crate) images: &'a [(PathBuf, String)],
    pub(crate) cmdline: &'a str,
    /// The systemd unit that this boot is for.
    pub(crate) unit: &'a str,
    pub(crate) console: Console,
    /// A directory for the files of this boot.
    pub(crate) work: &'a Path,
}

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    /// The daemon did not start; its status is on stderr.
    DaemonFailed,
    /// CMD was not reached in time.
    NotReady,
    /// CMD ran longer than it may.
    TimedOut,
    /// Nobody reads what CMD prints; a local command would be ended by SIGPIPE.
    OutputClosed,
    /// QEMU ended, e.g. after a kernel panic, and CMD had no status.
    Died,
}

pub(crate) struct Limits {
    pub(crate) boot: Duration,
    pub(crate) command: Duration,
    /// What to say while the command runs; nothing by default, its own output is what counts.
    pub(crate) tick: Option<String>,
}

/// The outcome, and how long it took until CMD could start.
pub(crate) struct Report {
    pub(crate) end: End,
    pub(crate) ready_after: Option<Duration>,
    /// The guest could not return its /share.
    pub(crate) share_lost: bool,
}

impl Boot<'_> {
    /// Boots, copies the command's output while it runs, and waits for the end.
    pub(crate) fn run(
        &self,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
        limits: &Limits,
    ) -> Result<Report> {
        let mut qemu = self.qemu()?;
        let (out, out_writer) = port(&mut qemu, "stdout", 1)?;
        let (err, err_writer) = port(&mut qemu, "stderr", 2)?;
        let (control, control_writer) = port(&mut qemu, "control", 3)?;
        let begun = Instant::now();
        let mut child =
            Running(qemu.stdin(Stdio::null()).spawn().context("cannot start qemu-system-x86_64")?);
        // QEMU has its copies; the end of file must come when it ends.
        drop((out_writer, err_writer, control_writer));
        let (word, words) = mpsc::channel();
        let copies = [copy(out, stdout, word.clone()), copy(err, stderr, word.clone())];
        listen(control, word);
        let report = follow(&words, begun, limits);
        if matches!(report.end, End::NotReady | End::TimedOut | End::OutputClosed) {
            child.kill();
        }
        // The guest switches itself off after its last word.
        child.wait_for(Duration::from_secs(20));
        for copy in copies {
            copy.join().ok().context("a thread that copies output panicked")??;
        }
        Ok(report)
    }

    /// Hands the terminal to the guest's console until it is switched off.
    pub(crate) fn interact(&self) -> Result<()> {
        self.qemu()?.status().context("cannot start qemu-system-x86_64")?;
        Ok(())
    }

    fn qemu(&self) -> Result<Command> {
        let initramfs = self.work.join("initramfs");
        write_initramfs(&initramfs, self.kernel, self.rootfs).context("cannot write the initramfs")?;
        // Should this process be killed, so is the guest.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
        qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-m", "4G"]);
        qemu.args(match self.accel {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host", "-smp", "2"].as_slice(),
            Accel::Emulated => &["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", "2"],
            Accel::InTurn => &["-accel", "tcg,thread=single,tb-size=512", "-cpu", "max", "-smp", "2"],
            Accel::Counted => &["-accel", "tcg,thread=single,tb-size=512", "-cpu", "max", "-smp", "1"],
        });
        if self.accel == Accel::Counted {
            qemu.args(["-icount", "shift=0,align=off,sleep=off"]);
        }
        qemu.arg("-kernel").arg(&self.kernel.vmlinuz).arg("-initrd").arg(&initramfs);
        match &self.console {
            Console::Log(path) => {
                qemu.arg("-chardev").arg(format!("file,id=console,path={}", path.display()));
                qemu.args(["-serial", "chardev:console"]);
            }
            Console::Terminal => drop(qemu.args(["-serial", "mon:stdio"])),
        }
        disk(&mut qemu, "root", &self.rootfs.image, "snapshot=on");
        disk(&mut qemu, "modules", &self.kernel.modules, "readonly=on");
        disk(&mut qemu, "payload", self.payload, "readonly=on");
        if let Some(path) = self.returns {
            disk(&mut qemu, "out", path, "cache=unsafe");
        }
        let mut cmdline = format!("console=ttyS0 panic=-1 oops=panic quiet systemd.wants={}", self.unit);
        for ((image, mount), letter) in self.images.iter().zip('a'..='d') {
            disk(&mut qemu, &format!("image-{letter}"), image, "readonly=on");
            write!(cmdline, " guest.image-{letter}={mount}")?;
        }
        if matches!(self.console, Console::Log(_)) {
            cmdline.push_str(" systemd.journald.forward_to_console=1");
        }
        write!(cmdline, " {}", self.cmdline)?;
        qemu.arg("-append").arg(cmdline);
        qemu.args(["-device", "virtio-serial-pci"]);
        Ok(qemu)
    }
}

/// A busybox, the modules that the root disk needs, and the script that mounts it.
pub(crate) fn write_initramfs(path: &Path, kernel: &KernelImage, rootfs: &Rootfs) -> io::Result<()> {
    let mut cpio = Cpio::new(io::BufWriter::new(File::create(path)?));
    for dir in ["bin", "modules", "proc", "sys", "dev", "new"] {
        cpio.dir(dir)?;
    }
    cpio.bytes("init", include_bytes!("../../tests/guest/init"))?;
    cpio.file("bin/busybox", &rootfs.busybox)?;
    for applet in
        ["sh", "mount", "umount", "mkdir", "cat", "sed", "tar", "insmod", "sleep", "poweroff", "switch_root"]
    {
        cpio.link(&format!("bin/{applet}"), "busybox")?;
    }
    for module in &kernel.early {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        cpio.file(&format!("modules/{name}"), module)?;
    }
    cpio.finish()
}

fn disk(qemu: &mut Command, serial: &str, file: &Path, options: &str) {
    qemu.arg("-drive").arg(format!("if=none,id={serial},format=raw,{options},file={}", file.display()));
    qemu.arg("-device").arg(format!("virtio-blk-pci,drive={serial},serial={serial}"));
}

/// A virtio-serial port whose bytes come out of a pipe that QEMU inherits.
fn port(qemu: &mut Command, name: &str, number: u32) -> Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe().context("cannot create a pipe")?;
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot let QEMU inherit a pipe")?;
    qemu.arg("-add-fd").arg(format!("fd={},set={number}", writer.as_raw_fd()));
    // Without `append` QEMU truncates the file, which a pipe refuses.
    qemu.arg("-chardev").arg(format!("file,id={name},append=on,path=/dev/fdset/{number}"));
    qemu.arg("-device").arg(format!("virtserialport,chardev={name},name=guest.{name}"));
    Ok((reader, writer))
}

/// What a thread of this process has to say about a running guest.
enum Word {
    /// A line of the control port.
    Guest(String),
    /// Nobody reads the output any more.
    OutputClosed,
}

fn copy(
    mut from: PipeReader,
    mut to: impl Write + Send + 'static,
    word: Sender<Word>,
) -> JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        let mut result = Ok(());
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return result;
            }
            if result.is_err() {
                continue;
            }
            result = to.write_all(&buffer[..count]).and_then(|()| to.flush());
            if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                let _ = word.send(Word::OutputClosed);
                result = Ok(());
            }
        }
    })
}

fn listen(control: PipeReader, word: Sender<Word>) {
    thread::spawn(move || {
        for line in BufReader::new(control).lines().map_while(Result::ok) {
            if word.send(Word::Guest(line)).is_err() {
                return;
            }
        }
    });
}

/// What the guest says on its control port, until it ends or its time is up.
fn follow(words: &Receiver<Word>, begun: Instant, limits: &Limits) -> Report {
    let mut report = Report { end: End::Died, ready_after: None, share_lost: false };
    let mut deadline = begun + limits.boot;
    let mut _ticker = Some(Ticker::start("the guest boots"));
    loop {
        match words.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Word::OutputClosed) => {
                report.end = End::OutputClosed;
                return report;
            }
            Ok(Word::Guest(line)) if line == "ready" => {
                _ticker = limits.tick.as_ref().map(Ticker::start);
                report.ready_after = Some(begun.elapsed());
                deadline = Instant::now() + limits.command;
            }
            Ok(Word::Guest(line)) if line == "share-failed" => report.share_lost = true,
            Ok(Word::Guest(line)) if line == "daemon-failed" => report.end = End::DaemonFailed,
            Ok(Word::Guest(line)) => {
                _ticker = None;
                let status = line.strip_prefix("exit ").and_then(|status| status.parse().ok());
                if let (Some(status), End::Died) = (status, &report.end) {
                    report.end = End::Exit(status);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return report,
            Err(RecvTimeoutError::Timeout) => {
                // A guest that said its last word and does not switch itself off is done all the same.
                if report.end == End::Died {
                    report.end = if report.ready_after.is_some() { End::TimedOut } else { End::NotReady };
                }
                return report;
            }
        }
        if matches!(report.end, End::Exit(_)) {
            deadline = Instant::now() + Duration::from_secs(20);
        }
    }
}

/// A QEMU process that does not outlive its value.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        let _ = self.0.kill();
    }

    fn wait_for(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                progress::note("the guest did not switch itself off; it is ended");
                self.kill();
                let _ = self.0.wait();
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
    }
}
