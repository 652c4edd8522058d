//! Watching the guests' system calls: lines as `strace(1)` prints them, or an explanation of each call.
//!
//! The kernel calls the hooks here, [`enter`], [`leave`], [`signal_delivered`], [`blocking`] and [`ended`]; while nobody
//! watches, each is one branch.

mod decode;
mod explain;
mod filter;
mod lines;
mod prototypes;
mod sink;

pub use filter::{CallFilter, TaskFilter};
pub use sink::HostStream;

use crate::errno::Result;
use crate::host;
use crate::kernel::{Ctx, Kernel};
use crate::platform::TrapFrame;
use crate::signal::SigInfo;
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

/// Where a trace goes; supplied by the machine.
pub trait Sink: Send + Sync {
    /// Takes text: whole lines, but for a call that blocks, whose line comes in pieces. Pieces of different lines never
    /// mix. Called with the trace locked.
    fn write(&self, text: &str);
}

/// How a trace looks.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// A line a call, as `strace -f` prints it.
    #[default]
    Lines,
    /// For learners: what happens at each call, in words.
    Explain,
}

/// Which time stands at the beginning of each line.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// None.
    #[default]
    None,
    /// Seconds and microseconds since boot.
    SinceBoot,
    /// Seconds and microseconds since 1970, `strace -ttt`.
    Epoch,
}

/// What a user wants to see.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How it looks.
    pub style: Style,
    /// Time column.
    pub clock: Clock,
    /// The time that each call took, at the end of its line, `strace -T`.
    pub durations: bool,
    /// Which calls.
    pub calls: CallFilter,
    /// Which tasks.
    pub tasks: TaskFilter,
    /// Bytes shown of each string and buffer, `strace -s`; 0 for its default of 32.
    pub string_limit: usize,
}

/// A trace that is on.
pub struct Tracer {
    options: Options,
    sink: Box<dyn Sink>,
    state: Mutex<lines::State>,
}

impl Tracer {
    /// A trace to `sink`.
    pub fn new(options: Options, sink: Box<dyn Sink>) -> Tracer {
        Tracer { options, sink, state: Mutex::default() }
    }

    fn string_limit(&self) -> usize {
        if self.options.string_limit == 0 { 32 } else { self.options.string_limit }
    }

    /// What stands before each line of the running task: its id and the time.
    fn prefix(&self, ctx: &Ctx) -> String {
        let ns = match self.options.clock {
            Clock::None => return format!("{:<5} ", ctx.task.tid()),
            Clock::SinceBoot => host::monotonic_ns().saturating_sub(ctx.kernel.boot_monotonic),
            Clock::Epoch => host::realtime_ns(),
        };
        format!("{:<5} {}.{:06} ", ctx.task.tid(), ns / 1_000_000_000, ns / 1000 % 1_000_000)
    }
}

/// The running task's tracer, if somebody watches the task.
fn watching<'a>(ctx: &Ctx<'a>) -> Option<&'a Tracer> {
    let kernel: &'a Kernel = ctx.kernel;
    kernel.trace.as_ref().filter(|t| t.options.tasks.matches(ctx.task))
}

/// The running task has made a system call.
#[inline]
pub fn enter(ctx: &Ctx, frame: &TrapFrame) {
    if ctx.kernel.trace.is_some()
        && let Some(tracer) = watching(ctx)
        && tracer.options.calls.matches(frame.orig_rax)
    {
        match tracer.options.style {
            Style::Lines => tracer.enter_line(ctx, frame),
            Style::Explain => tracer.explain_enter(ctx, frame),
        }
    }
}

/// The running task's call has this result.
#[inline]
pub fn leave(ctx: &Ctx, frame: &TrapFrame, result: &Result<usize>) {
    if ctx.kernel.trace.is_some()
        && let Some(tracer) = watching(ctx)
    {
        match tracer.options.style {
            Style::Lines => tracer.leave_line(ctx, result),
            Style::Explain => tracer.explain_leave(ctx, frame, result),
        }
    }
}

/// The running task is about to sleep in its call.
#[inline]
pub fn blocking(ctx: &Ctx) {
    if let Some(tracer) = &ctx.kernel.trace {
        tracer.show_open(ctx);
    }
}

/// A signal has taken effect on the running task: its handler or its default action comes next.
#[inline]
pub fn signal_delivered(ctx: &Ctx, info: &SigInfo) {
    if ctx.kernel.trace.is_some()
        && let Some(tracer) = watching(ctx)
    {
        tracer.event(ctx, &format!("--- {} ---", decode::signal_line(info)));
    }
}

/// The running task has stopped by a signal.
#[inline]
pub fn stopped(ctx: &Ctx, sig: u8) {
    if ctx.kernel.trace.is_some()
        && let Some(tracer) = watching(ctx)
    {
        tracer.event(ctx, &format!("--- stopped by {} ---", decode::signal_name(sig)));
    }
}

/// The running task has ended.
#[inline]
pub fn ended(ctx: &Ctx) {
    if ctx.kernel.trace.is_some()
        && let Some(tracer) = watching(ctx)
    {
        tracer.end(ctx);
    }
}
