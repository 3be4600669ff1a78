//! Accepts clients, one task each, up to a named number.

use std::{io, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::driver::{self, World};

/// Pause after a failed accept (too many open files): the error lasts longer than a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes in a client's socket that were accepted but not sent: kept small, so that "delivered" means nearly received.
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// Bytes that the system may hold of what a server sent and the gate has not read; it doubles them for its bookkeeping. By
/// itself it would go up to `tcp_rmem`, 6 MiB and more: a thousand slow clients then fill what TCP has of memory (`tcp_mem`),
/// and every connection of the machine slows down.
const SERVER_RECEIVE: usize = 512 * 1024;

/// Accepts until `stop`; every session runs on `tasks`. `stop` lets sessions end their responses, `abort` drops them where they are:
/// what a dropped session had delivered stands in its journal slot and is booked as interrupted.
pub(crate) async fn accept(
    listener: TcpListener,
    world: Arc<World>,
    sessions_max: usize,
    tasks: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(sessions_max));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (client, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%peer, sessions_max, "closed at accept: sessions_max is reached");
            continue;
        };
        if let Err(error) = tune_client(&client) {
            tracing::debug!(%peer, %error, "client socket");
            continue;
        }
        let (world, stop, abort) = (Arc::clone(&world), stop.clone(), abort.clone());
        tasks.spawn(async move {
            tokio::select! {
                end = driver::run(client, world, stop) => tracing::info!(%peer, %end, "session ended"),
                () = abort.cancelled() => tracing::info!(%peer, "session dropped by the stop"),
            }
            drop(place);
        });
    }
}

fn tune_client(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_notsent_lowat(NOTSENT_LOWAT)
}

/// Sets up a socket to the server.
pub(crate) fn tune_server(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_recv_buffer_size(SERVER_RECEIVE)
}
