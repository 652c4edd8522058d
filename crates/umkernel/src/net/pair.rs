//! `socketpair(2)`.

use super::ancillary::Ucred;
use super::socket::Link;
use super::{Kind, Socket};
use crate::kernel::Ctx;
use alloc::sync::Arc;

/// Two sockets that are connected to each other.
pub fn pair(ctx: &Ctx, kind: Kind) -> (Arc<Socket>, Arc<Socket>) {
    let (one, two) = (Socket::create(kind), Socket::create(kind));
    for (own, other) in [(&one, &two), (&two, &one)] {
        let mut state = own.state.lock();
        state.link = Link::Peer(other.clone());
        state.peer_creds = Some(Ucred::effective(ctx));
    }
    (one, two)
}
