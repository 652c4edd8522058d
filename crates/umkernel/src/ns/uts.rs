//! Names of the machine (`uts_namespaces(7)`).

use super::Ticket;
use crate::kernel::Ctx;
use crate::sync::Mutex;
use alloc::string::String;

/// Host and domain name: the part of `uname(2)` that can be changed.
#[derive(Clone, Debug)]
pub struct Uts {
    /// Host name.
    pub nodename: String,
    /// NIS domain name.
    pub domainname: String,
}

/// Names of their own for the tasks in it.
pub struct UtsNamespace {
    pub(super) ticket: Ticket,
    /// The names.
    pub names: Mutex<Uts>,
}

impl<'a> Ctx<'a> {
    /// The machine's names, as the running task knows them.
    pub fn uts(&self) -> &'a Mutex<Uts> {
        &self.namespaces().uts.names
    }
}
