//! A road to a server on which answers can get lost.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinSet,
};

/// What happens to what the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Pass,
    Vanish,
    /// They wait until they may pass.
    Held,
    /// Nobody gets through at all.
    Blocked,
}

/// Passes connections on to a server. Dropping it cuts them.
pub struct Proxy {
    address: SocketAddr,
    answers: watch::Sender<Answers>,
    cut: Arc<watch::Sender<u64>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Opens a road to a server.
    pub async fn to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (answers, says) = watch::channel(Answers::Pass);
        let cut = Arc::new(watch::Sender::new(0));
        let mut tasks = JoinSet::new();
        let cutting = Arc::clone(&cut);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if *says.borrow() == Answers::Blocked {
                    continue;
                }
                let (says, mut cut) = (says.clone(), cutting.subscribe());
                connections.spawn(async move {
                    tokio::select! {
                        _ = pass(client, server, says) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self { address, answers, cut, _tasks: tasks })
    }

    /// Where it begins, for clients.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on, answers vanish.
    pub fn swallow_answers(&self) {
        self.answers.send_replace(Answers::Vanish);
    }

    /// From now on, answers are held back until they are [let through](Self::release).
    pub fn hold_answers(&self) {
        self.answers.send_replace(Answers::Held);
    }

    /// Lets everything through again.
    pub fn release(&self) {
        self.answers.send_replace(Answers::Pass);
    }

    /// Cuts all connections; new ones are as they should be.
    pub fn cut(&self) {
        self.answers.send_replace(Answers::Pass);
        self.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts all connections, and lets nobody through until it is [cut](Self::cut) again.
    pub fn block(&self) {
        self.answers.send_replace(Answers::Blocked);
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

async fn pass(client: TcpStream, server: SocketAddr, says: watch::Receiver<Answers>) -> Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = TcpStream::connect(server).await?.into_split();
    let (_sender, always) = watch::channel(Answers::Pass);
    tokio::try_join!(copy(from_client, to_server, always), copy(from_server, to_client, says))?;
    Ok(())
}

async fn copy(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut says: watch::Receiver<Answers>,
) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        anyhow::ensure!(length > 0, "closed");
        let held = says.wait_for(|says| *says != Answers::Held).await.map(|says| *says);
        if held? == Answers::Pass {
            to.write_all(buffer.get(..length).unwrap_or_default()).await?;
        }
    }
}
