//! `ptrace(2)`: the requests as their numbers and arguments stand for them. What they do is in [`crate::ptrace`].

use super::{Arg, Entry, Family, Support};
use crate::bail;
use crate::errno::{Errno, Result};
use crate::kernel::Ctx;
use crate::mm::TASK_SIZE;
use crate::platform::TrapFrame;
use crate::ptrace::request::{self, Resume, SyscallInfo};
use crate::ptrace::{self, link, memory, registers};
use crate::seccomp;
use crate::signal::{SIGINFO_SIZE, SigInfo, SigSet};
use crate::task::{Pid, Task};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::ptrace::{
    AUDIT_ARCH_X86_64, PTRACE_ATTACH, PTRACE_CONT, PTRACE_DETACH, PTRACE_GET_SYSCALL_INFO, PTRACE_GETEVENTMSG,
    PTRACE_GETREGSET, PTRACE_GETSIGINFO, PTRACE_GETSIGMASK, PTRACE_INTERRUPT, PTRACE_KILL, PTRACE_LISTEN,
    PTRACE_PEEKDATA, PTRACE_PEEKSIGINFO, PTRACE_PEEKTEXT, PTRACE_PEEKUSR, PTRACE_POKEDATA, PTRACE_POKETEXT,
    PTRACE_POKEUSR, PTRACE_SECCOMP_GET_FILTER, PTRACE_SECCOMP_GET_METADATA, PTRACE_SEIZE, PTRACE_SETOPTIONS,
    PTRACE_SETREGSET, PTRACE_SETSIGINFO, PTRACE_SETSIGMASK, PTRACE_SINGLESTEP, PTRACE_SYSCALL, PTRACE_TRACEME,
};

/// The call of this family.
pub(super) const TABLE: &[Entry] = &[Entry::new(101, "ptrace", Family::Process, ARGS, SUPPORT, sys_ptrace)];

const ARGS: &[Arg] = &[Arg::Kind("ptrace_request"), Arg::Int, Arg::Hex, Arg::Hex];
const SUPPORT: Support = Support::Partial("no debug registers, no steps by branches, no PTRACE_O_SUSPEND_SECCOMP");

/// Requests of x86 (`asm/ptrace-abi.h`).
mod x86 {
    pub(super) const GETREGS: u32 = 12;
    pub(super) const SETREGS: u32 = 13;
    pub(super) const GETFPREGS: u32 = 14;
    pub(super) const SETFPREGS: u32 = 15;
    pub(super) const OLDSETOPTIONS: u32 = 21;
    pub(super) const ARCH_PRCTL: u32 = 30;
    pub(super) const SYSEMU: u32 = 31;
    pub(super) const SYSEMU_SINGLESTEP: u32 = 32;
}

/// Register sets (`linux/elf.h`).
mod set {
    pub(super) const PRSTATUS: u64 = 1;
    pub(super) const PRFPREG: u64 = 2;
    pub(super) const X86_XSTATE: u64 = 0x202;
}

fn sys_ptrace(ctx: &Ctx, args: &[u64; 6], _frame: &mut TrapFrame) -> Result<usize> {
    let [request, pid, addr, data, ..] = *args;
    let request = u32::try_from(request).unwrap_or(u32::MAX);
    if request == PTRACE_TRACEME {
        return ptrace::trace_me(ctx).map(|()| 0);
    }
    let pid = pid as Pid;
    let Some(task) = ctx.kernel.tasks.task(pid) else {
        let attaches = matches!(request, PTRACE_ATTACH | PTRACE_SEIZE);
        return match ctx.kernel.tasks.process(pid) {
            Some(_) if attaches => Err(Errno::EPERM.into()),
            _ => Err(Errno::ESRCH.into()),
        };
    };
    match request {
        PTRACE_ATTACH => ptrace::attach(ctx, &task)?,
        PTRACE_SEIZE if addr != 0 => bail!(EIO, "an address"),
        PTRACE_SEIZE => ptrace::seize(ctx, &task, data)?,
        PTRACE_KILL => request::kill(ctx, &task)?,
        PTRACE_INTERRUPT => request::interrupt_tracee(ctx, &task)?,
        _ => {
            request::with_stop(ctx, &task, |_| ())?;
            return stopped(ctx, &task, request, addr, data);
        }
    }
    Ok(0)
}

/// A request about a tracee that is stopped.
fn stopped(ctx: &Ctx, task: &Arc<Task>, request: u32, addr: u64, data: u64) -> Result<usize> {
    let resume = |how| request::signal_number(data).and_then(|sig| request::resume(ctx, task, how, sig));
    match request {
        PTRACE_CONT => resume(Resume::Continue)?,
        PTRACE_SYSCALL => resume(Resume::Syscall)?,
        PTRACE_SINGLESTEP => resume(Resume::Step)?,
        x86::SYSEMU => resume(Resume::Emulate)?,
        x86::SYSEMU_SINGLESTEP => resume(Resume::EmulateStep)?,
        PTRACE_DETACH => link::detach(task, request::signal_number(data)?),
        PTRACE_LISTEN => request::listen(ctx, task)?,
        PTRACE_SETOPTIONS | x86::OLDSETOPTIONS => request::set_options(ctx, task, data)?,
        PTRACE_PEEKTEXT | PTRACE_PEEKDATA => ctx.write_val(data, &peek(ctx, task, addr)?)?,
        PTRACE_POKETEXT | PTRACE_POKEDATA => {
            if memory::write(ctx, task, &task.mm()?, addr, &data.to_ne_bytes()) < size_of::<u64>() {
                bail!(EIO, "cannot be written");
            }
        }
        PTRACE_PEEKUSR => ctx.write_val(data, &registers::peek_user(ctx, task, addr)?)?,
        PTRACE_POKEUSR => registers::poke_user(ctx, task, addr, data)?,
        x86::GETREGS => ctx.write_user(data, &registers::general_bytes(ctx, task)?)?,
        x86::SETREGS => {
            let mut bytes = [0; size_of::<TrapFrame>()];
            ctx.read_user(data, &mut bytes)?;
            registers::set_general(ctx, task, &bytes)?;
        }
        x86::GETFPREGS => {
            let image = registers::extended(ctx, task)?;
            ctx.write_user(data, image.get(..registers::FP_SIZE).ok_or(Errno::EIO)?)?;
        }
        x86::SETFPREGS => {
            let mut bytes = alloc::vec![0; registers::FP_SIZE];
            ctx.read_user(data, &mut bytes)?;
            registers::set_fp(ctx, task, bytes)?;
        }
        PTRACE_GETREGSET => get_set(ctx, task, addr, data)?,
        PTRACE_SETREGSET => set_set(ctx, task, addr, data)?,
        PTRACE_GETSIGINFO => ctx.write_user(data, &request::siginfo(ctx, task)?.encode())?,
        PTRACE_SETSIGINFO => {
            let raw: [u8; SIGINFO_SIZE] = ctx.read_val(data)?;
            request::set_siginfo(ctx, task, SigInfo::decode(raw[0], &raw))?;
        }
        PTRACE_GETSIGMASK | PTRACE_SETSIGMASK if addr != SigSet::SIZE => bail!(EINVAL, "sigsetsize is not 8"),
        PTRACE_GETSIGMASK => ctx.write_val(data, &task.signals.lasting_mask().0)?,
        PTRACE_SETSIGMASK => request::set_sigmask(ctx, task, ctx.read_val(data)?)?,
        PTRACE_PEEKSIGINFO => return peek_siginfo(ctx, task, addr, data),
        PTRACE_GETEVENTMSG => {
            let message = request::with_stop(ctx, task, |stop| stop.message())?;
            ctx.write_val(data, &message)?;
        }
        PTRACE_GET_SYSCALL_INFO => return syscall_info(ctx, task, addr, data),
        PTRACE_SECCOMP_GET_FILTER => return filter(ctx, task, addr, data),
        PTRACE_SECCOMP_GET_METADATA => return filter_metadata(ctx, task, addr, data),
        x86::ARCH_PRCTL => arch_prctl(ctx, task, data, addr)?,
        _ => bail!(EIO, "no such request"),
    }
    Ok(0)
}

fn peek(ctx: &Ctx, task: &Arc<Task>, addr: u64) -> Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    if memory::read(ctx, task, &task.mm()?, addr, &mut bytes) < bytes.len() {
        bail!(EIO, "cannot be read");
    }
    Ok(u64::from_ne_bytes(bytes))
}

/// `struct iovec` of a register set: where it is in the tracer's memory, and its length there, in whole words.
fn read_iovec(ctx: &Ctx, at: u64) -> Result<(u64, usize)> {
    let [base, len]: [u64; 2] = ctx.read_val(at)?;
    Ok((base, usize::try_from(len).unwrap_or(usize::MAX)))
}

fn check_words(len: usize) -> Result<()> {
    if len.is_multiple_of(size_of::<u64>()) { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

fn get_set(ctx: &Ctx, task: &Arc<Task>, which: u64, at: u64) -> Result<()> {
    let (base, len) = read_iovec(ctx, at)?;
    let bytes = match which {
        set::PRSTATUS => registers::general_bytes(ctx, task)?,
        set::PRFPREG | set::X86_XSTATE => registers::extended(ctx, task)?,
        _ => bail!(EINVAL, "no such register set"),
    };
    check_words(len)?;
    let most = if which == set::PRFPREG { registers::FP_SIZE } else { bytes.len() };
    let bytes = bytes.get(..len.min(most)).unwrap_or(&bytes);
    ctx.write_user(base, bytes)?;
    ctx.write_val(at + 8, &(bytes.len() as u64))
}

fn set_set(ctx: &Ctx, task: &Arc<Task>, which: u64, at: u64) -> Result<()> {
    let (base, len) = read_iovec(ctx, at)?;
    let most = match which {
        set::PRSTATUS => size_of::<TrapFrame>(),
        set::PRFPREG => registers::FP_SIZE,
        set::X86_XSTATE => registers::extended(ctx, task)?.len(),
        _ => bail!(EINVAL, "no such register set"),
    };
    check_words(len)?;
    let mut bytes = alloc::vec![0; len.min(most)];
    ctx.read_user(base, &mut bytes)?;
    let len = bytes.len() as u64;
    match which {
        set::PRSTATUS => registers::set_general(ctx, task, &bytes)?,
        set::PRFPREG => registers::set_fp(ctx, task, bytes)?,
        _ => registers::set_extended(ctx, task, bytes)?,
    }
    ctx.write_val(at + 8, &len)
}

fn peek_siginfo(ctx: &Ctx, task: &Arc<Task>, addr: u64, data: u64) -> Result<usize> {
    const SHARED: u32 = 1;
    // struct ptrace_peeksiginfo_args: off, flags and nr.
    let [skip, rest]: [u64; 2] = ctx.read_val(addr)?;
    let (flags, count) = (rest as u32, (rest >> 32) as i32);
    if flags & !SHARED != 0 || count < 0 {
        bail!(EINVAL, "flags or count");
    }
    let all = request::pending_signals(ctx, task, flags & SHARED != 0, skip, count as usize)?;
    for (index, info) in all.iter().enumerate() {
        let stored = ctx.write_user(data.wrapping_add((index * SIGINFO_SIZE) as u64), &info.encode());
        // What was stored counts.
        if index > 0 && stored.is_err() {
            return Ok(index);
        }
        stored?;
    }
    Ok(all.len())
}

/// `struct ptrace_syscall_info`, as much of it as the tracer has room for; returns how long it is.
fn syscall_info(ctx: &Ctx, task: &Arc<Task>, room: u64, data: u64) -> Result<usize> {
    const NONE: u8 = 0;
    const ENTRY: u8 = 1;
    const EXIT: u8 = 2;
    const SECCOMP: u8 = 3;
    let (ip, sp, what) = request::syscall_info(ctx, task)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(88);
    let op = match what {
        SyscallInfo::None => NONE,
        SyscallInfo::Entry(..) => ENTRY,
        SyscallInfo::Exit(..) => EXIT,
        SyscallInfo::Seccomp(..) => SECCOMP,
    };
    bytes.extend([op, 0, 0, 0]);
    bytes.extend(AUDIT_ARCH_X86_64.to_ne_bytes());
    bytes.extend([ip, sp].iter().flat_map(|word| word.to_ne_bytes()));
    match what {
        SyscallInfo::None => {}
        SyscallInfo::Entry(nr, args) => {
            bytes.extend(nr.to_ne_bytes());
            bytes.extend(args.iter().flat_map(|word| word.to_ne_bytes()));
        }
        SyscallInfo::Exit(result, is_error) => {
            bytes.extend(result.to_ne_bytes());
            bytes.push(is_error.into());
        }
        SyscallInfo::Seccomp(nr, args, word) => {
            bytes.extend(nr.to_ne_bytes());
            bytes.extend(args.iter().flat_map(|word| word.to_ne_bytes()));
            bytes.extend(word.to_ne_bytes());
        }
    }
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    ctx.write_user(data, &bytes[..room.min(bytes.len())])?;
    Ok(bytes.len())
}

/// `PTRACE_SECCOMP_GET_FILTER`: copies a filter's instructions, if there is a place for them, and returns how many there are.
fn filter(ctx: &Ctx, task: &Task, index: u64, data: u64) -> Result<usize> {
    let instructions = seccomp::show(ctx, task, index)?.instructions;
    if data != 0 {
        ctx.write_user(data, &instructions)?;
    }
    Ok(instructions.len() / seccomp::bpf::Instruction::SIZE)
}

/// `PTRACE_SECCOMP_GET_METADATA`: `struct seccomp_metadata`, as much of it as there is room for; returns how much that is.
fn filter_metadata(ctx: &Ctx, task: &Task, room: u64, data: u64) -> Result<usize> {
    /// The index that the caller asks for, and the flags that it gets.
    const SIZE: u64 = 16;
    let size = room.min(SIZE) as usize;
    if size < size_of::<u64>() {
        bail!(EINVAL, "no room for the index");
    }
    let index: u64 = ctx.read_val(data)?;
    let logs = seccomp::show(ctx, task, index)?.logs;
    let flags = u64::from(if logs { seccomp::Flags::LOG.bits() } else { 0 });
    let bytes = [index.to_ne_bytes(), flags.to_ne_bytes()].concat();
    ctx.write_user(data, &bytes[..size])?;
    Ok(size)
}

/// `arch_prctl(2)` for the tracee; addresses are the tracer's.
fn arch_prctl(ctx: &Ctx, task: &Arc<Task>, code: u64, addr: u64) -> Result<()> {
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    match code {
        SET_FS | SET_GS if addr >= TASK_SIZE => bail!(EPERM, "not a user address"),
        SET_FS => request::with_stop(ctx, task, |stop| stop.registers().fs_base = addr),
        SET_GS => request::with_stop(ctx, task, |stop| stop.registers().gs_base = addr),
        GET_FS => ctx.write_val(addr, &registers::general(ctx, task)?.fs_base),
        GET_GS => ctx.write_val(addr, &registers::general(ctx, task)?.gs_base),
        _ => bail!(EINVAL),
    }
}
