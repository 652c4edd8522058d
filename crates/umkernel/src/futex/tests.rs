use super::*;
use crate::task::Task;
use crate::testing::{Machine, addr, machine, soon};
use crate::{Ctx, Errno};
use core::sync::atomic::AtomicU32;
use linux_raw_sys::general::*;

fn encode(op: u32, cmp: u32, op_arg: u32, cmp_arg: u32) -> u32 {
    op << 28 | cmp << 24 | (op_arg & 0xfff) << 12 | cmp_arg & 0xfff
}

#[test]
fn wake_op_decodes_signed_arguments_and_shifts() {
    let add = WakeOp::decode(encode(1, 2, -3i32 as u32, -1i32 as u32)).unwrap();
    assert_eq!(add.apply(10), 7);
    assert!(add.holds(-2i32 as u32) && !add.holds(-1i32 as u32));
    let or_bit = WakeOp::decode(encode(2 | 8, 5, 4, 0)).unwrap();
    assert_eq!(or_bit.apply(1), 17);
    assert!(WakeOp::decode(encode(5, 0, 0, 0)).is_err());
    assert!(WakeOp::decode(encode(0, 6, 0, 0)).is_err());
}

const PRIVATE: u64 = FUTEX_PRIVATE_FLAG as u64;

/// Another thread of the test's process, as far as futexes care: a task with the same memory.
fn companion(machine: &Machine, of: &Arc<Task>) -> Arc<Task> {
    let task = machine.child(of);
    task.mm.set(of.mm.get());
    task
}

/// Makes a futex call as `task` on a host thread of its own.
fn call_on_thread(
    machine: &Machine,
    task: &Arc<Task>,
    args: [u64; 6],
) -> std::thread::JoinHandle<crate::Result<usize>> {
    let (kernel, task) = (machine.kernel.clone(), task.clone());
    std::thread::spawn(move || Ctx { kernel: &kernel, task: &task }.call(__NR_futex, &args))
}

/// Sleepers and lock waiters in all buckets.
fn waiting(machine: &Machine) -> usize {
    let table = &machine.kernel.futexes;
    let count = |b: &Mutex<Bucket>| {
        let bucket = b.lock();
        bucket.sleepers.len() + bucket.locks.iter().map(|l| l.waiter_count()).sum::<usize>()
    };
    table.buckets.iter().map(count).sum()
}

#[test]
fn a_wait_ends_at_once_when_the_word_differs_or_the_time_is_over() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let word = AtomicU32::new(7);
    let at = addr(&word);
    let (soon, bad) = ([0u64, 1_000_000], [0u64, 1_000_000_000]);
    assert_eq!(ctx.call(__NR_futex, &[at, PRIVATE, 8, 0]).unwrap_err(), Errno::EAGAIN);
    assert_eq!(ctx.call(__NR_futex, &[at, PRIVATE, 7, addr(&soon)]).unwrap_err(), Errno::ETIMEDOUT);
    assert_eq!(ctx.call(__NR_futex, &[at, PRIVATE, 7, addr(&bad)]).unwrap_err(), Errno::EINVAL);
    assert_eq!(ctx.call(__NR_futex, &[at + 1, PRIVATE, 7, 0]).unwrap_err(), Errno::EINVAL);
    assert_eq!(ctx.call(__NR_futex, &[4096, PRIVATE, 7, 0]).unwrap_err(), Errno::EFAULT);
    assert_eq!(ctx.call(__NR_futex, &[at, 0, 7, 0]).unwrap_err(), Errno::EFAULT, "a shared word is mapped");
    assert_eq!(ctx.call(__NR_futex, &[at, 99, 7, 0]).unwrap_err(), Errno::ENOSYS);
    assert_eq!(waiting(&machine), 0);
}

#[test]
fn wake_and_requeue_reach_the_sleepers_that_they_say() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let words = [AtomicU32::new(1), AtomicU32::new(2)];
    let (first, second) = (addr(&words[0]), addr(&words[1]));
    let threads: std::vec::Vec<_> = (0..3)
        .map(|n| {
            let thread = call_on_thread(&machine, &companion(&machine, &task), [first, PRIVATE, 1, 0, 0, 0]);
            soon(|| waiting(&machine) == n + 1);
            thread
        })
        .collect();
    let cmp_requeue = u64::from(FUTEX_CMP_REQUEUE) | PRIVATE;
    assert_eq!(ctx.call(__NR_futex, &[first, cmp_requeue, 1, 1, second, 9]).unwrap_err(), Errno::EAGAIN);
    // One woken, one moved; one stays.
    assert_eq!(ctx.call(__NR_futex, &[first, cmp_requeue, 1, 1, second, 1]), Ok(2));
    soon(|| waiting(&machine) == 2);
    let wake = u64::from(FUTEX_WAKE) | PRIVATE;
    assert_eq!(ctx.call(__NR_futex, &[second, wake, 10]), Ok(1));
    assert_eq!(ctx.call(__NR_futex, &[first, wake, 10]), Ok(1));
    threads.into_iter().for_each(|t| assert_eq!(t.join().unwrap(), Ok(0)));
}

#[test]
fn bitsets_choose_whom_to_wake() {
    let machine = machine();
    let task = machine.task();
    let word = AtomicU32::new(1);
    let at = addr(&word);
    let wait = u64::from(FUTEX_WAIT_BITSET) | PRIVATE;
    let thread = call_on_thread(&machine, &companion(&machine, &task), [at, wait, 1, 0, 0, 0b10]);
    soon(|| waiting(&machine) == 1);
    let wake =
        |bits: u64| machine.ctx(&task).call(__NR_futex, &[at, u64::from(FUTEX_WAKE_BITSET) | PRIVATE, 1, 0, 0, bits]);
    assert_eq!(wake(0b01), Ok(0));
    assert_eq!(wake(0b11), Ok(1));
    assert_eq!(thread.join().unwrap(), Ok(0));
    assert_eq!(wake(0).unwrap_err(), Errno::EINVAL);
}

#[test]
fn a_priority_inheritance_lock_goes_from_owner_to_waiter() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let word = AtomicU32::new(0);
    let at = addr(&word);
    let op = |command: u32| u64::from(command) | PRIVATE;
    assert_eq!(ctx.call(__NR_futex, &[at, op(FUTEX_LOCK_PI)]), Ok(0));
    assert_eq!(word.load(Ordering::SeqCst), task.tid() as u32);
    assert_eq!(ctx.call(__NR_futex, &[at, op(FUTEX_LOCK_PI)]).unwrap_err(), Errno::EDEADLK);
    let other = companion(&machine, &task);
    assert_eq!(machine.ctx(&other).call(__NR_futex, &[at, op(FUTEX_TRYLOCK_PI)]).unwrap_err(), Errno::EAGAIN);
    assert_eq!(machine.ctx(&other).call(__NR_futex, &[at, op(FUTEX_UNLOCK_PI)]).unwrap_err(), Errno::EPERM);
    let thread = call_on_thread(&machine, &other, [at, op(FUTEX_LOCK_PI), 0, 0, 0, 0]);
    soon(|| waiting(&machine) == 1);
    assert_ne!(word.load(Ordering::SeqCst) & FUTEX_WAITERS, 0);
    assert_eq!(ctx.call(__NR_futex, &[at, op(FUTEX_UNLOCK_PI)]), Ok(0));
    assert_eq!(thread.join().unwrap(), Ok(0));
    assert_eq!(word.load(Ordering::SeqCst) & FUTEX_TID_MASK, other.tid() as u32);
    assert_eq!(machine.ctx(&other).call(__NR_futex, &[at, op(FUTEX_UNLOCK_PI)]), Ok(0));
    assert_eq!(word.load(Ordering::SeqCst), 0);
    assert_eq!(machine.kernel.futexes.pi_locks.load(Ordering::SeqCst), 0);
}

#[test]
fn the_end_of_an_owner_is_marked() {
    let machine = machine();
    let task = machine.task();
    let ctx = machine.ctx(&task);
    let owned = AtomicU32::new(task.tid() as u32 | FUTEX_WAITERS);
    let at = addr(&owned);
    // One entry, whose word lies right at its list pointer's object: head, entry, head again.
    let mut head = [0u64; 3];
    let entry = [addr(&head)];
    head = [addr(&entry), at.wrapping_sub(addr(&entry)), 0];
    core::hint::black_box(&mut head);
    ctx.call(__NR_set_robust_list, &[addr(&head), 24]).unwrap();
    assert_eq!(ctx.call(__NR_set_robust_list, &[addr(&head), 23]).unwrap_err(), Errno::EINVAL);
    exit_robust_list(&ctx);
    assert_eq!(owned.load(Ordering::SeqCst), FUTEX_WAITERS | FUTEX_OWNER_DIED);

    // The heir of a priority-inheritance lock finds it taken for him.
    let lock = AtomicU32::new(task.tid() as u32);
    let heir = companion(&machine, &task);
    let gone = machine.ctx(&heir).call(__NR_futex, &[addr(&lock), u64::from(FUTEX_LOCK_PI) | PRIVATE]);
    assert_eq!(gone.unwrap_err(), Errno::ESRCH, "an owner that has let go of its locks is nobody");
}
