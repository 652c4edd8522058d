use crate::errno::Errno;
use crate::kernel::Ctx;
use crate::signal::{self, SigSet};
use crate::task::{Capabilities, Creds, Rlimit, Task};
use crate::testing::{Machine, addr, machine, soon};
use alloc::sync::Arc;
use core::cell::Cell;
use core::ffi::CStr;
use core::sync::atomic::Ordering;
use linux_raw_sys::general::*;
use std::thread::JoinHandle;
use std::vec;
use std::vec::Vec;

const MAKE: u32 = O_RDWR | O_CREAT;
const NAME: &CStr = c"queue";

fn open(ctx: &Ctx, name: &CStr, flags: u32, wish: Option<[i64; 2]>) -> Result<u64, Errno> {
    let attr = wish.map(|[messages, bytes]| [0, messages, bytes, 0, 0, 0, 0, 0]);
    let attr = attr.as_ref().map_or(0, |attr: &[i64; 8]| addr(attr));
    let fd = ctx.call(__NR_mq_open, &[name.as_ptr() as u64, u64::from(flags), 0o600, attr]);
    fd.map(|fd| fd as u64).map_err(|error| error.errno)
}

fn send(ctx: &Ctx, fd: u64, text: &str, priority: u64) -> Result<(), Errno> {
    let args = [fd, addr(text.as_bytes()), text.len() as u64, priority, 0];
    ctx.call(__NR_mq_timedsend, &args).map(drop).map_err(|error| error.errno)
}

fn receive(ctx: &Ctx, fd: u64) -> Result<(Vec<u8>, u32), Errno> {
    let (mut text, priority) = (vec![0u8; 64], Cell::new(0u32));
    let args = [fd, text.as_mut_ptr() as u64, text.len() as u64, addr(&priority), 0];
    let len = ctx.call(__NR_mq_timedreceive, &args).map_err(|error| error.errno)?;
    text.truncate(len);
    Ok((text, priority.get()))
}

fn message(text: &str, priority: u32) -> Result<(Vec<u8>, u32), Errno> {
    Ok((text.as_bytes().to_vec(), priority))
}

/// Makes a call as another thread of the task's process, on a host thread of its own, and waits until it sleeps.
fn asleep<T: Send + 'static>(
    machine: &Machine,
    first: &Arc<Task>,
    call: impl FnOnce(&Ctx) -> T + Send + 'static,
) -> JoinHandle<T> {
    let (kernel, task) = (machine.kernel.clone(), machine.thread(first));
    let looked_at = task.clone();
    let thread = std::thread::spawn(move || call(&Ctx { kernel: &kernel, task: &task }));
    soon(|| looked_at.sched.sleeping.load(Ordering::SeqCst));
    thread
}

#[test]
fn the_highest_priority_comes_first() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let fd = open(&ctx, NAME, MAKE | O_NONBLOCK, Some([3, 64])).unwrap();
    assert_eq!(receive(&ctx, fd), Err(Errno::EAGAIN));
    for (text, priority) in [("low", 0), ("high", 7), ("high too", 7)] {
        send(&ctx, fd, text, priority).unwrap();
    }
    assert_eq!(send(&ctx, fd, "no room", 9), Err(Errno::EAGAIN));
    assert_eq!(receive(&ctx, fd), message("high", 7));
    assert_eq!(receive(&ctx, fd), message("high too", 7));
    assert_eq!(receive(&ctx, fd), message("low", 0));
    assert_eq!(send(&ctx, fd, "", 32_768), Err(Errno::EINVAL));
    assert_eq!(send(&ctx, fd, &"x".repeat(65), 0), Err(Errno::EMSGSIZE));
}

#[test]
fn who_waits_is_served_in_turn() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let fd = open(&ctx, NAME, MAKE, Some([1, 64])).unwrap();
    let first = asleep(&machine, &task, move |ctx| receive(ctx, fd));
    let second = asleep(&machine, &task, move |ctx| receive(ctx, fd));
    // Neither of them is in the queue, which has room for one.
    send(&ctx, fd, "one", 1).unwrap();
    send(&ctx, fd, "two", 2).unwrap();
    assert_eq!((first.join().unwrap(), second.join().unwrap()), (message("one", 1), message("two", 2)));

    send(&ctx, fd, "fills it", 0).unwrap();
    let sender = asleep(&machine, &task, move |ctx| send(ctx, fd, "waited", 5));
    assert_eq!(receive(&ctx, fd), message("fills it", 0));
    assert_eq!(sender.join().unwrap(), Ok(()));
    assert_eq!(receive(&ctx, fd), message("waited", 5));
}

#[test]
fn who_does_not_wait_any_longer_takes_nothing() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let fd = open(&ctx, NAME, MAKE, Some([1, 64])).unwrap();
    let until = |ms: u64| {
        let at = crate::host::realtime_ns() + ms * 1_000_000;
        [at / 1_000_000_000, at % 1_000_000_000]
    };
    let (text, soon, past, wrong) = ([0u8; 64], until(20), [1, 0], [0, 1_000_000_000u64]);
    let receive_until = |until: &[u64; 2]| {
        let args = [fd, addr(&text), 64, 0, addr(until)];
        ctx.call(__NR_mq_timedreceive, &args).map_err(|error| error.errno)
    };
    assert_eq!(receive_until(&soon), Err(Errno::ETIMEDOUT));
    assert_eq!(receive_until(&past), Err(Errno::ETIMEDOUT));
    assert_eq!(receive_until(&wrong), Err(Errno::EINVAL));
    send(&ctx, fd, "stays", 0).unwrap();
    let sent = ctx.call(__NR_mq_timedsend, &[fd, addr(b"x"), 1, 0, addr(&until(20))]);
    assert_eq!(sent.map_err(|error| error.errno), Err(Errno::ETIMEDOUT));
    assert_eq!(receive(&ctx, fd), message("stays", 0));
    // Another thread, so that what interrupts it does not interrupt this one.
    let interrupted = {
        let other = machine.thread(&task);
        other.dying.store(true, Ordering::SeqCst);
        signal::recalculate_attention(&other);
        receive(&machine.ctx(&other), fd)
    };
    assert_eq!(interrupted, Err(Errno::ERESTARTSYS));
    send(&ctx, fd, "not for it", 0).unwrap();
    assert_eq!(receive(&ctx, fd), message("not for it", 0));
}

/// A `struct sigevent`.
fn event(value: u64, signo: u32, notify: u64) -> [u64; 8] {
    [value, u64::from(signo) | notify << 32, 0, 0, 0, 0, 0, 0]
}

fn notify(ctx: &Ctx, fd: u64, event: Option<&[u64; 8]>) -> Result<usize, Errno> {
    ctx.call(__NR_mq_notify, &[fd, event.map_or(0, addr)]).map_err(|error| error.errno)
}

#[test]
fn a_message_in_the_empty_queue_is_told_once() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let pending = || signal::pending(&task);
    let told = SigSet::of(&[SIGUSR1 as u8]);
    let fd = open(&ctx, NAME, MAKE | O_NONBLOCK, Some([4, 64])).unwrap();
    let by_signal = event(5, SIGUSR1, 0);
    assert_eq!(notify(&ctx, fd, Some(&by_signal)), Ok(0));
    assert_eq!(notify(&ctx, fd, Some(&by_signal)), Err(Errno::EBUSY));
    let other = machine.child(&task);
    assert_eq!(notify(&machine.ctx(&other), fd, None), Err(Errno::EBADF), "it has not opened the queue");
    assert!(pending().is_empty());
    send(&ctx, fd, "first", 0).unwrap();
    assert_eq!(pending(), told);
    // It is not empty: the next message is none to be told of.
    assert_eq!(notify(&ctx, fd, Some(&event(0, SIGUSR2, 0))), Ok(0));
    send(&ctx, fd, "second", 0).unwrap();
    assert_eq!(pending(), told);
    assert_eq!(notify(&ctx, fd, None), Ok(0));
    assert_eq!(notify(&ctx, fd, Some(&event(0, 65, 0))), Err(Errno::EINVAL));
    assert_eq!(notify(&ctx, fd, Some(&event(0, SIGUSR1, 4))), Err(Errno::EINVAL));
    // Without a signal, until a descriptor is closed.
    let copy = ctx.call(__NR_dup, &[fd]).unwrap() as u64;
    assert_eq!(notify(&ctx, fd, Some(&event(0, 0, 1))), Ok(0));
    ctx.call(__NR_close, &[copy]).unwrap();
    assert_eq!(notify(&ctx, fd, Some(&event(0, 0, 1))), Ok(0));
}

#[test]
fn a_cookie_has_room_in_its_socket() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let socket = ctx.call(__NR_socket, &[16, 3, 0]).unwrap() as u64;
    let taken = || {
        const MSG_DONTWAIT: u64 = 0x40;
        let mut bytes = vec![0u8; 40];
        let args = [socket, bytes.as_mut_ptr() as u64, 40, MSG_DONTWAIT, 0, 0];
        let len = ctx.call(__NR_recvfrom, &args).map_err(|error| error.errno)?;
        bytes.truncate(len);
        Ok::<_, Errno>(bytes)
    };
    let cookie = [7u8; 32];
    let fd = open(&ctx, NAME, MAKE | O_NONBLOCK, Some([4, 64])).unwrap();
    let by_thread = event(addr(&cookie), socket as u32, 2);
    assert_eq!(notify(&ctx, fd, Some(&by_thread)), Ok(0));
    assert_eq!(taken(), Err(Errno::EAGAIN));
    send(&ctx, fd, "", 0).unwrap();
    let told = taken().unwrap();
    assert_eq!((told.len(), told[30], told[31]), (32, 7, 1));
    receive(&ctx, fd).unwrap();
    assert_eq!(notify(&ctx, fd, Some(&by_thread)), Ok(0));
    assert_eq!(notify(&ctx, fd, None), Ok(0));
    assert_eq!(taken().map(|bytes| bytes[31]), Ok(2));
    assert_eq!(notify(&ctx, fd, Some(&event(addr(&cookie), fd as u32, 2))), Err(Errno::ENOTSOCK));
    // The buffer has room for so many cookies, told or not, and no more until some are read.
    const SMALLEST: usize = 2304;
    ctx.call(__NR_setsockopt, &[socket, 1, 8, addr(&0u32), 4]).unwrap();
    for _ in 0..SMALLEST / 32 {
        assert_eq!(notify(&ctx, fd, Some(&by_thread)), Ok(0));
        assert_eq!(notify(&ctx, fd, None), Ok(0));
    }
    let more = asleep(&machine, &task, move |ctx| {
        let by_thread = event(addr(&cookie), socket as u32, 2);
        notify(ctx, fd, Some(&by_thread))
    });
    assert!(taken().is_ok());
    assert_eq!(more.join().unwrap(), Ok(0));
}

#[test]
fn limits_are_for_those_without_privilege() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let limit = |bytes| {
        task.process.rlimits.lock()[RLIMIT_MSGQUEUE as usize] = Rlimit { cur: bytes, max: bytes };
    };
    limit(Rlimit::INFINITY);
    for (n, wish) in [[65_536, 1], [1, 16 << 20]].into_iter().enumerate() {
        let name = [c"many", c"long"][n];
        assert!(open(&ctx, name, MAKE, Some(wish)).is_ok());
        assert_eq!(open(&ctx, NAME, MAKE, Some(wish.map(|most| most + 1))), Err(Errno::EINVAL));
    }
    // 4 messages of 100 bytes count for 4 * (100 + 48) + 4 * 48.
    task.creds.set(Arc::new(Creds { uid: 5, effective: Capabilities::empty(), ..Creds::root() }));
    limit(783);
    assert_eq!(open(&ctx, NAME, MAKE, Some([4, 100])), Err(Errno::EMFILE));
    limit(784);
    let fd = open(&ctx, NAME, MAKE, Some([4, 100])).unwrap();
    assert_eq!(open(&ctx, c"another", MAKE, Some([1, 1])), Err(Errno::EMFILE));
    assert_eq!(open(&ctx, c"another", MAKE, Some([11, 1])), Err(Errno::EINVAL));
    ctx.kernel.settings.mqueue_queues_max.set(3).unwrap();
    assert_eq!(open(&ctx, c"another", MAKE, Some([11, 1])), Err(Errno::ENOSPC));
    // What has no name any more counts until it is closed.
    ctx.call(__NR_mq_unlink, &[NAME.as_ptr() as u64]).unwrap();
    assert_eq!(open(&ctx, NAME, MAKE, Some([1, 1])), Err(Errno::ENOSPC));
    ctx.call(__NR_close, &[fd]).unwrap();
    assert!(open(&ctx, NAME, MAKE, Some([4, 100])).is_ok());
}
