//! Plays a script on a connection.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::TcpStream,
    time::{interval, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    super::wire::{Cut, Wire},
    SLOWLY, Step,
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How much of a flood is written at once, in bytes, and how often.
const GUSH: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(4);
/// How long what was said gets to reach the other side before a reset, which would overtake it.
const HEAD_START: Duration = Duration::from_millis(50);

/// Plays the script, inside TLS if there is any.
pub(super) async fn play(stream: TcpStream, tls: Option<TlsAcceptor>, script: Arc<[Step]>) {
    stream.set_nodelay(true).ok();
    let cut = Arc::<Cut>::default();
    let wire = Wire::new(stream, Arc::clone(&cut));
    // How a connection ends is the client's business: a test sees it there.
    match tls {
        None => follow(wire, &script, &cut).await.unwrap_or_default(),
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(wire)).await {
                follow(stream, &script, &cut).await.unwrap_or_default();
            }
        }
    }
}

async fn follow<S>(mut stream: S, script: &[Step], cut: &Cut) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for step in script {
        match step {
            Step::Hear => {
                // Whatever it is, and if it is nothing.
                let _heard = stream.read(&mut [0; 4 << 10]).await?;
            }
            Step::Await(wanted) => await_bytes(&mut stream, wanted).await?,
            Step::Say(bytes) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
            }
            Step::Drip(bytes) => both(&mut stream, Speed::Drip(bytes)).await?,
            Step::Flood(bytes) => both(&mut stream, Speed::Flood(bytes)).await?,
            Step::Drain => drain(&mut stream).await?,
            Step::Freeze => std::future::pending().await,
            Step::Reset => {
                sleep(HEAD_START).await;
                cut.now();
                return Ok(());
            }
        }
    }
    stream.shutdown().await?;
    // A close with something unread would be a reset, and could overtake what was said.
    drain(&mut stream).await
}

/// Reads until the bytes have come, or the other side has closed.
async fn await_bytes(stream: &mut (impl AsyncRead + Unpin), wanted: &[u8]) -> io::Result<()> {
    let (mut seen, mut piece) = (Vec::<u8>::new(), vec![0; 16 << 10]);
    while !seen.windows(wanted.len()).any(|window| window == wanted) {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen.extend(piece.get(..count).unwrap_or_default());
    }
    Ok(())
}

async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut piece = vec![0; 16 << 10];
    while stream.read(&mut piece).await? > 0 {}
    Ok(())
}

/// How something is said again and again.
enum Speed<'a> {
    Drip(&'a [u8]),
    Flood(&'a [u8]),
}

/// Writes for ever, and reads; ends when either cannot be done any more.
async fn both<S>(stream: &mut S, speed: Speed<'_>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reading, mut writing) = split(stream);
    let say = async {
        match speed {
            Speed::Drip(bytes) => {
                let mut ticks = interval(SLOWLY);
                for byte in bytes.iter().cycle() {
                    ticks.tick().await;
                    writing.write_all(&[*byte]).await?;
                    writing.flush().await?;
                }
            }
            Speed::Flood(bytes) => {
                let gush = bytes.repeat(GUSH.div_ceil(bytes.len().max(1)));
                loop {
                    writing.write_all(&gush).await?;
                    writing.flush().await?;
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = say => ended,
        ended = drain(&mut reading) => ended,
    }
}
