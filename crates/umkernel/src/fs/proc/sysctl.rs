//! `/proc/sys` (`Documentation/admin-guide/sysctl`): what the kernel's limits and settings are. Those without effect here
//! cannot be written.

use super::global::line;
use crate::errno::{Errno, Result};
use crate::fs::pseudo::{DirBuilder, Store};
use crate::ipc::Limits;
use crate::kernel::{Ctx, Kernel};
use crate::ns::Uts;
use crate::seccomp;
use crate::settings::{Limit, Settings};
use crate::task::Capabilities;
use crate::version;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};

/// Adds the tree.
pub(super) fn add(root: DirBuilder, kernel: &Kernel) -> DirBuilder {
    let boot_id = uuid(random_bytes(kernel.boot_realtime, kernel.boot_monotonic));
    root.dir("sys", |sys| {
        sys.dir("kernel", |dir| kernel_settings(dir, boot_id))
            .dir("fs", |dir| {
                dir.file("file-max", |_| b"9223372036854775807\n".to_vec())
                    .text("nr_open", "1048576\n")
                    .file("file-nr", |ctx| {
                        line(ctx, |kernel| format!("{}\t0\t9223372036854775807", open_files(kernel)))
                    })
                    .text("suid_dumpable", "0\n")
                    .text("protected_hardlinks", "0\n")
                    .text("protected_symlinks", "0\n")
                    .setting("aio-max-nr", |settings| &settings.aio_max_nr)
                    .file("aio-nr", |ctx| line(ctx, |kernel| kernel.aio.get().to_string()))
                    .setting("lease-break-time", |settings| &settings.lease_break_time)
                    .setting("leases-enable", |settings| &settings.leases_enable)
                    .setting("pipe-max-size", |settings| &settings.pipe_max_size)
                    .dir("inotify", |dir| {
                        dir.setting("max_queued_events", |settings| &settings.inotify_queued_events)
                            .setting("max_user_instances", |settings| &settings.inotify_user_instances)
                            .setting("max_user_watches", |settings| &settings.inotify_user_watches)
                    })
                    .dir("mqueue", |dir| {
                        dir.setting("msg_default", |settings| &settings.mqueue_msg_default)
                            .setting("msg_max", |settings| &settings.mqueue_msg_max)
                            .setting("msgsize_default", |settings| &settings.mqueue_msgsize_default)
                            .setting("msgsize_max", |settings| &settings.mqueue_msgsize_max)
                            .setting("queues_max", |settings| &settings.mqueue_queues_max)
                    })
            })
            .dir("vm", |dir| {
                dir.file_with("drop_caches", 0o200, |_| Ok(b"0\n".to_vec()), Some(Box::new(drop_caches)))
                    .text("overcommit_memory", "0\n")
                    .text("overcommit_ratio", "50\n")
                    .setting("max_map_count", |settings| &settings.max_map_count)
                    .file("mmap_min_addr", |ctx| line(ctx, |_| crate::mm::MMAP_MIN.to_string()))
                    .text("swappiness", "60\n")
            })
    })
}

fn kernel_settings(dir: DirBuilder, boot_id: String) -> DirBuilder {
    let dir = dir
        .text("ostype", "Linux\n")
        .file("osrelease", |_| format!("{}\n", version::RELEASE).into_bytes())
        .file("version", |_| format!("{}\n", version::VERSION).into_bytes())
        .file_with("hostname", 0o644, |ctx| Ok(name(ctx, |uts| &uts.nodename)), Some(set_name(true)))
        .file_with("domainname", 0o644, |ctx| Ok(name(ctx, |uts| &uts.domainname)), Some(set_name(false)))
        .setting("pid_max", |settings| &settings.pid_max)
        .file("threads-max", |ctx| line(ctx, |kernel| kernel.config.max_tasks.to_string()))
        .text("ngroups_max", "65536\n")
        .text("cap_last_cap", "40\n")
        .text("overflowuid", "65534\n")
        .text("overflowgid", "65534\n")
        .file_with("core_pattern", 0o644, |ctx| Ok(core_pattern(ctx)), Some(Box::new(set_core_pattern)))
        .file_with("core_uses_pid", 0o644, |ctx| Ok(core_uses_pid(ctx)), Some(Box::new(set_core_uses_pid)))
        .text("dmesg_restrict", "0\n")
        .text("randomize_va_space", "0\n")
        .text("sysrq", "0\n")
        .text("tainted", "0\n")
        .text("panic", "0\n")
        .file_with("printk", 0o644, |ctx| Ok(printk(ctx)), Some(Box::new(set_printk)))
        .file_with("ctrl-alt-del", 0o644, |ctx| Ok(ctrl_alt_del(ctx)), Some(Box::new(set_ctrl_alt_del)))
        .dir("random", |dir| {
            dir.file("boot_id", move |_| format!("{boot_id}\n").into_bytes())
                .file("uuid", |ctx| {
                    line(ctx, |_| {
                        let mut bytes = [0; 16];
                        crate::host::getrandom(&mut bytes);
                        uuid(bytes)
                    })
                })
                .text("entropy_avail", "256\n")
                .text("poolsize", "256\n")
        })
        .dir("pty", |dir| dir.text("max", "4096\n"))
        .dir("seccomp", |dir| {
            let all = |ctx: &Ctx| line(ctx, |_| seccomp::ACTIONS.map(|action| action.1).join(" "));
            let logged = |ctx: &Ctx| Ok(line(ctx, |kernel| kernel.seccomp_log.names()));
            let set = |ctx: &Ctx, text: &[u8]| ctx.kernel.seccomp_log.set_names(ctx, text);
            dir.file("actions_avail", all).file_with("actions_logged", 0o644, logged, Some(Box::new(set)))
        });
    ipc_limits(dir)
}

impl DirBuilder {
    /// Adds a setting.
    fn setting(self, name: &'static str, which: fn(&Settings) -> &Limit) -> DirBuilder {
        self.limit(name, move |ctx| which(&ctx.kernel.settings))
    }

    /// Adds a number of the kernel's that can be changed.
    fn limit<F>(self, name: &'static str, which: F) -> DirBuilder
    where
        F: for<'a> Fn(&Ctx<'a>) -> &'a Limit + Copy + Send + Sync + 'static,
    {
        let show = move |ctx: &Ctx| Ok(line(ctx, |_| which(ctx).get().to_string()));
        let store = move |ctx: &Ctx, text: &[u8]| set_limits(text, &[which(ctx)]);
        self.file_with(name, 0o644, show, Some(Box::new(store)))
    }
}

/// System V IPC.
fn ipc_limits(dir: DirBuilder) -> DirBuilder {
    type Which = fn(&Limits) -> &Limit;
    let limits: [(&str, Which); 6] = [
        ("msgmax", |limits| &limits.msgmax),
        ("msgmnb", |limits| &limits.msgmnb),
        ("msgmni", |limits| &limits.msgmni),
        ("shmall", |limits| &limits.shmall),
        ("shmmax", |limits| &limits.shmmax),
        ("shmmni", |limits| &limits.shmmni),
    ];
    let dir = limits.into_iter().fold(dir, |dir, (name, which)| dir.limit(name, move |ctx| which(&ctx.ipc().limits)));
    fn sem(limits: &Limits) -> [&Limit; 4] {
        [&limits.semmsl, &limits.semmns, &limits.semopm, &limits.semmni]
    }
    let show = |ctx: &Ctx| -> Result<alloc::vec::Vec<u8>> {
        let values = sem(&ctx.ipc().limits).map(|limit| limit.get().to_string());
        Ok(format!("{}\n", values.join("\t")).into_bytes())
    };
    dir.file_with("sem", 0o644, show, Some(Box::new(|ctx, text| set_limits(text, &sem(&ctx.ipc().limits)))))
        .text("shm_rmid_forced", "0\n")
}

/// Sets limits to the numbers of a text, as many as it has.
fn set_limits(text: &[u8], limits: &[&Limit]) -> Result<()> {
    let text = String::from_utf8_lossy(text);
    let numbers: core::result::Result<alloc::vec::Vec<u64>, _> =
        text.split_ascii_whitespace().map(str::parse).collect();
    let numbers = numbers.map_err(|_| crate::Error::new(Errno::EINVAL, "not a number"))?;
    limits.iter().zip(numbers).try_for_each(|(limit, number)| limit.set(number))
}

fn open_files(kernel: &Kernel) -> usize {
    let processes = kernel.tasks.processes();
    let first = |p: &alloc::sync::Arc<crate::task::Process>| p.inner.lock().threads.first().cloned();
    processes.iter().filter_map(first).map(|t| t.files().descriptors().len()).sum()
}

/// One of the machine's names, as a line.
fn name(ctx: &Ctx, which: fn(&Uts) -> &String) -> alloc::vec::Vec<u8> {
    line(ctx, |_| which(&ctx.uts().lock()).clone())
}

/// Takes a new host name, or NIS domain name.
fn set_name(host: bool) -> Store {
    Box::new(move |ctx, text| {
        if !ctx.creds().capable(Capabilities::SYS_ADMIN) {
            return Err(Errno::EPERM.into());
        }
        let text = String::from_utf8_lossy(text);
        let name: String = text.lines().next().unwrap_or("").chars().take(64).collect();
        let mut uts = ctx.uts().lock();
        if host {
            uts.nodename = name
        } else {
            uts.domainname = name
        }
        Ok(())
    })
}

fn printk(ctx: &Ctx) -> alloc::vec::Vec<u8> {
    format!("{}\t4\t1\t7\n", ctx.kernel.log.console_level()).into_bytes()
}

fn number(text: &[u8]) -> Result<u32> {
    let text = String::from_utf8_lossy(text);
    let first = text.split_ascii_whitespace().next().unwrap_or("");
    first.parse().map_err(|_| crate::Error::new(Errno::EINVAL, "not a number"))
}

/// Drops what is cached: the kernel's own is names and inodes (2); data (1) is in the host's page cache.
fn drop_caches(ctx: &Ctx, text: &[u8]) -> Result<()> {
    const QUIET: u32 = 4;
    let what = number(text)?;
    if !(1..=QUIET).contains(&what) {
        return Err(Errno::EINVAL.into());
    }
    if what & 2 != 0 {
        ctx.kernel.vfs.drop_names();
    }
    Ok(())
}

fn set_printk(ctx: &Ctx, text: &[u8]) -> Result<()> {
    ctx.kernel.log.set_console_level(number(text)?);
    Ok(())
}

fn core_pattern(ctx: &Ctx) -> alloc::vec::Vec<u8> {
    line(ctx, |kernel| kernel.core_pattern.text())
}

fn set_core_pattern(ctx: &Ctx, text: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(text);
    ctx.kernel.core_pattern.set(text.lines().next().unwrap_or_default())
}

fn core_uses_pid(ctx: &Ctx) -> alloc::vec::Vec<u8> {
    line(ctx, |kernel| u8::from(kernel.core_pattern.with_pid.load(core::sync::atomic::Ordering::Relaxed)).to_string())
}

fn set_core_uses_pid(ctx: &Ctx, text: &[u8]) -> Result<()> {
    let on = number(text)? != 0;
    ctx.kernel.core_pattern.with_pid.store(on, core::sync::atomic::Ordering::Relaxed);
    Ok(())
}

fn ctrl_alt_del(ctx: &Ctx) -> alloc::vec::Vec<u8> {
    let on = !ctx.kernel.power.cad_tells_init.load(core::sync::atomic::Ordering::Relaxed);
    format!("{}\n", u8::from(on)).into_bytes()
}

fn set_ctrl_alt_del(ctx: &Ctx, text: &[u8]) -> Result<()> {
    let on = number(text)? != 0;
    ctx.kernel.power.cad_tells_init.store(!on, core::sync::atomic::Ordering::Relaxed);
    Ok(())
}

/// Bytes that differ from boot to boot and stay the same during one.
fn random_bytes(a: u64, b: u64) -> [u8; 16] {
    // splitmix64
    let mix = |seed: u64| {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let (x, y) = (mix(a ^ mix(b)), mix(b.wrapping_add(mix(a))));
    (u128::from(x) << 64 | u128::from(y)).to_be_bytes()
}

/// Random bytes as a UUID of version 4.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
