//! Commands to the owners of shards.

use fanfare_domain::{Command, Shard};

use crate::{Pending, PublishError, Publisher, publish::outgoing::Outgoing, topology::Stream};

impl Publisher {
    /// Writes a command to the owner of a shard, under its id.
    pub async fn command(&self, shard: Shard, command: &Command) -> Result<Pending, PublishError> {
        self.publish(Outgoing {
            stream: Stream::Commands,
            subject: self.log.topology().command(shard).into(),
            id: Some(command.id.to_string()),
            headers: Vec::new(),
            payload: fanfare_proto::encode_command(command),
        })
        .await
    }
}
