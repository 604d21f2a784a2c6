//! The end of a connection whose client may still be sending. Closing over bytes that nobody has read resets it, and what
//! was answered may be lost with it (RFC 9112 §9.6): it is closed for writing first, and what still comes is thrown away.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// How long a client that sends nothing more is waited for.
const SILENCE: Duration = Duration::from_secs(2);

/// How long one is waited for that goes on sending.
const LONGEST: Duration = Duration::from_secs(10);

/// Waits until the client has closed too, or for as long as is granted.
pub(super) async fn linger(connection: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let wait = async {
        // It may have been closed for writing before.
        let _ = connection.shutdown().await;
        let mut rest = [0; 4096];
        while let Ok(Ok(1..)) = timeout(SILENCE, connection.read(&mut rest)).await {}
    };
    let _ = timeout(LONGEST, wait).await;
}
