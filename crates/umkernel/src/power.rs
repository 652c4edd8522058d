//! How the machine stops: `reboot(2)`, the end of process 1, a request from the host.

use crate::kernel::Kernel;
use crate::signal::{self, SigInfo};
use crate::sync::{Mutex, Waiter, Wake};
use crate::task::WaitStatus;
use core::sync::atomic::{AtomicBool, Ordering};

/// What happens after the machine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerAction {
    /// It ends; the exit code is for the caller of `umlfs boot`.
    Off(u8),
    /// It starts again from the same image.
    Restart,
    /// It rests; for a user-mode machine the same as off.
    Halt,
    /// It ends because nothing can go on: process 1 has ended.
    Panic,
}

/// The machine's power switch.
#[derive(Default)]
pub struct Power {
    /// Ctrl-Alt-Del tells process 1 rather than restarting at once (`reboot(2)`, `LINUX_REBOOT_CMD_CAD_OFF`).
    pub cad_tells_init: AtomicBool,
    action: Mutex<Option<PowerAction>>,
    pressed: Waiter,
}

impl Power {
    /// Asks for an action; the first one counts.
    pub fn request(&self, action: PowerAction) {
        self.action.lock().get_or_insert(action);
        self.pressed.wake();
    }

    /// What was asked for.
    pub fn requested(&self) -> Option<PowerAction> {
        *self.action.lock()
    }

    /// Sleeps until something is asked for.
    pub fn wait(&self) -> PowerAction {
        loop {
            self.pressed.prepare();
            if let Some(action) = self.requested() {
                return action;
            }
            self.pressed.sleep(None);
        }
    }
}

impl Kernel {
    /// Stops the machine (`reboot(2)`): returns at once; all tasks are ended soon.
    pub fn power(&self, action: PowerAction) {
        self.power.request(action);
    }

    /// Ctrl-Alt-Del was pressed: `SIGINT` to process 1 if it has asked for that, otherwise a restart at once.
    pub fn ctrl_alt_del(&self) {
        let init = if self.power.cad_tells_init.load(Ordering::Relaxed) { self.tasks.process(1) } else { None };
        match init {
            // An init that is ending stops the machine itself.
            Some(init) => _ = signal::send_to_process(self, &init, SigInfo::kernel(signal::number::SIGINT)),
            None => self.power(PowerAction::Restart),
        }
    }

    /// Process 1 has ended: without a power-off before, that is the end of everything, as on Linux.
    pub fn init_ended(&self, status: WaitStatus) {
        if self.power.requested().is_none() {
            let text = alloc::format!(
                "Kernel panic - not syncing: Attempted to kill init! exitcode=0x{:08x}",
                status.to_word()
            );
            self.message(crate::log::Level::Emergency, text);
        }
        self.power(PowerAction::Panic);
    }
}
