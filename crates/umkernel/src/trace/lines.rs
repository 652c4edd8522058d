//! A trace of lines, one a call, in the format of `strace -f -o`.

use super::{Tracer, decode};
use crate::errno::{Errno, Result};
use crate::host;
use crate::kernel::Ctx;
use crate::platform::TrapFrame;
use crate::task::{Pid, WaitStatus};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

/// Where results stand, if the call's text leaves room, as in strace.
const RESULT_COLUMN: usize = 40;

/// Calls that are under way.
#[derive(Default)]
pub(super) struct State {
    /// By thread id.
    calls: BTreeMap<Pid, Call>,
    /// The task whose line is the current one, without its end yet.
    open: Option<Pid>,
}

/// A call under way.
pub(super) struct Call {
    pub(super) nr: u64,
    pub(super) args: [u64; 6],
    /// CLOCK_MONOTONIC at entry, nanoseconds.
    pub(super) started: u64,
    /// The line so far, if it was not written yet.
    text: String,
    /// Characters of the line so far.
    column: usize,
    /// Arguments decoded so far.
    pub(super) decoded: usize,
}

impl Tracer {
    pub(super) fn enter_line(&self, ctx: &Ctx, frame: &TrapFrame) {
        let (nr, args) = (frame.orig_rax, frame.args());
        let mut text = self.prefix(ctx);
        text.push_str(&decode::call_name(nr));
        text.push('(');
        let (decoded, arguments) = decode::entry_arguments(ctx, frame, self.string_limit());
        text.push_str(&arguments);
        let started = if self.options.durations { host::monotonic_ns() } else { 0 };
        let call = Call { nr, args, started, column: text.chars().count(), text, decoded };
        let mut state = self.state.lock();
        self.close_open(&mut state);
        state.calls.insert(ctx.task.tid(), call);
        state.open = Some(ctx.task.tid());
    }

    pub(super) fn leave_line(&self, ctx: &Ctx, result: &Result<usize>) {
        let tid = ctx.task.tid();
        let Some((nr, args, decoded)) =
            self.state.lock().calls.get(&tid).map(|call| (call.nr, call.args, call.decoded))
        else {
            return;
        };
        // Reads user memory: not under the lock that other tasks wait for. The call stays among those under way, so that another
        // task whose line begins meanwhile can end this one's.
        let rest = decode::exit_arguments(ctx, nr, args, decoded, result, self.string_limit());
        let value = decode::result(ctx, nr, args, result);
        let mut state = self.state.lock();
        let Some(call) = state.calls.remove(&tid) else { return };
        let (mut text, mut column) = if state.open == Some(tid) {
            state.open = None;
            (call.text, call.column)
        } else {
            self.close_open(&mut state);
            let text = format!("{}<... {} resumed>", self.prefix(ctx), decode::call_name(call.nr));
            let column = text.chars().count();
            (text, column)
        };
        text.push_str(&rest);
        text.push(')');
        column += rest.chars().count() + 1;
        // A space at least, and more up to the column.
        text.push(' ');
        text.extend(core::iter::repeat_n(' ', RESULT_COLUMN.saturating_sub(column + 1)));
        text.push_str("= ");
        // A call that ends its task has no result.
        if ctx.task.dying.load(Ordering::SeqCst) {
            text.push('?')
        } else {
            text.push_str(&value)
        }
        if self.options.durations {
            let ns = host::monotonic_ns().saturating_sub(call.started);
            text.push_str(&format!(" <{}.{:06}>", ns / 1_000_000_000, ns / 1000 % 1_000_000));
        }
        text.push('\n');
        self.sink.write(&text);
    }

    /// Writes what there is of the running task's line: the task is about to sleep.
    pub(super) fn show_open(&self, ctx: &Ctx) {
        let tid = ctx.task.tid();
        let mut state = self.state.lock();
        if state.open == Some(tid)
            && let Some(call) = state.calls.get_mut(&tid)
        {
            self.sink.write(&core::mem::take(&mut call.text));
        }
    }

    /// Ends the current line, whose call goes on.
    fn close_open(&self, state: &mut State) {
        if let Some(call) = state.open.take().and_then(|tid| state.calls.get_mut(&tid)) {
            self.sink.write(&format!("{} <unfinished ...>\n", core::mem::take(&mut call.text)));
        }
    }

    /// A line that is no call.
    pub(super) fn event(&self, ctx: &Ctx, text: &str) {
        let mut state = self.state.lock();
        self.close_open(&mut state);
        self.sink.write(&format!("{}{text}\n", self.prefix(ctx)));
    }

    pub(super) fn end(&self, ctx: &Ctx) {
        let tid = ctx.task.tid();
        let mut state = self.state.lock();
        self.close_open(&mut state);
        state.calls.remove(&tid);
        drop(state);
        let inner = ctx.task.process.inner.lock();
        let status = inner.exiting.or(inner.leader_status);
        drop(inner);
        let text = match status {
            Some(WaitStatus::Signaled(sig, core)) => {
                let core = if core { " (core dumped)" } else { "" };
                format!("+++ killed by {}{core} +++", decode::signal_name(sig))
            }
            Some(WaitStatus::Exited(code)) => format!("+++ exited with {code} +++"),
            _ => "+++ exited with 0 +++".into(),
        };
        self.event(ctx, &text);
    }

    /// Notes a call of the explaining trace, which has no lines.
    pub(super) fn begin_call(&self, ctx: &Ctx, nr: u64, args: [u64; 6]) {
        let started = host::monotonic_ns();
        let call = Call { nr, args, started, text: String::new(), column: 0, decoded: 0 };
        self.state.lock().calls.insert(ctx.task.tid(), call);
    }

    /// The call that [`Tracer::begin_call`] noted.
    pub(super) fn end_call(&self, ctx: &Ctx) -> Option<Call> {
        self.state.lock().calls.remove(&ctx.task.tid())
    }
}

/// Whether an error is one that only asks for a restart.
pub(super) fn is_restart(errno: Errno) -> bool {
    errno >= Errno::ERESTARTSYS
}
