//! Permissions, put together from what the rest of this crate does with the servers.

use super::Permissions;
use crate::{
    log::api_subject,
    read::FAN_OUT,
    topology::{Bucket, Stream, Topology},
};

/// Permissions that are being put together.
pub(super) struct Grant<'a> {
    topology: &'a Topology,
    permissions: Permissions,
    /// Whether the durable reader of EVENTS is ours.
    takes_events: bool,
}

impl<'a> Grant<'a> {
    pub(super) fn new(topology: &'a Topology) -> Self {
        Self { topology, permissions: Permissions::default(), takes_events: false }
    }

    pub(super) fn into_permissions(mut self) -> Permissions {
        let events = self.stream(Stream::Events);
        let follows = api_subject(&format!("CONSUMER.MSG.NEXT.{events}.*"));
        if self.permissions.publish.contains(&follows) && !self.takes_events {
            // Consumers have no names of which a wildcard tells whose they are: so the one whose
            // loss would stop everything is taken out.
            for question in ["CONSUMER.MSG.NEXT", "CONSUMER.DELETE"] {
                let question = api_subject(&format!("{question}.{events}.{FAN_OUT}"));
                self.permissions.publish_not.insert(question);
            }
        }
        self.permissions
    }

    /// The name of a stream.
    pub(super) fn stream(&self, stream: Stream) -> String {
        self.topology.stream(stream)
    }

    /// The name of the stream that a bucket is kept in.
    pub(super) fn bucket(&self, bucket: Bucket) -> String {
        self.topology.bucket_stream(bucket)
    }

    /// Every stream, those of buckets included.
    pub(super) fn all(&self) -> Vec<String> {
        let streams = Stream::ALL.map(|stream| self.stream(stream));
        streams.into_iter().chain(Bucket::ALL.map(|bucket| self.bucket(bucket))).collect()
    }

    /// Publishes to a subject, which is given without the prefix.
    pub(super) fn publishes(&mut self, subject: &str) {
        let subject = format!("{}.{subject}", self.topology.prefix());
        self.permissions.publish.insert(subject);
    }

    /// Subscribes to a subject, which is given without the prefix.
    pub(super) fn subscribes(&mut self, subject: &str) {
        let subject = format!("{}.{subject}", self.topology.prefix());
        self.permissions.subscribe.insert(subject);
    }

    /// Receives answers on subjects that begin with this.
    pub(super) fn hears(&mut self, inbox: &str) {
        self.permissions.subscribe.insert(format!("{inbox}.>"));
    }

    /// Answers questions of connections with this name.
    pub(super) fn answers(&mut self, name: &str) {
        let inbox = crate::topology::inbox(self.topology.prefix(), name);
        self.permissions.publish.insert(format!("{inbox}.>"));
    }

    /// Asks the API of `JetStream` something about a stream or consumer.
    pub(super) fn asks(&mut self, question: &str, about: &str) {
        self.permissions.publish.insert(api_subject(&format!("{question}.{about}")));
    }

    /// Attaches to an installation.
    pub(super) fn attaches(&mut self) {
        self.permissions.publish.insert(api_subject("INFO"));
        for stream in [Stream::Journal, Stream::Inbox] {
            self.asks("STREAM.INFO", &self.stream(stream));
        }
    }

    /// Opens the log as a service: looks whether every stream is as it should be.
    pub(super) fn opens(&mut self) {
        self.attaches();
        for stream in self.all() {
            self.asks("STREAM.INFO", &stream);
        }
    }

    /// Reads single messages of a stream.
    pub(super) fn gets(&mut self, stream: &str) {
        self.asks("STREAM.INFO", stream);
        self.asks("STREAM.MSG.GET", stream);
        self.asks("DIRECT.GET", stream);
    }

    /// Follows a stream by consumers that nobody else knows.
    pub(super) fn follows(&mut self, stream: &str) {
        self.gets(stream);
        self.asks("CONSUMER.CREATE", stream);
        for question in ["CONSUMER.MSG.NEXT", "CONSUMER.DELETE"] {
            self.asks(question, &format!("{stream}.*"));
        }
    }

    /// Follows the keys of a bucket.
    pub(super) fn follows_bucket(&mut self, bucket: Bucket) {
        self.follows(&self.bucket(bucket));
    }

    /// Takes messages from a stream by a durable consumer, and settles them. `filter` is without
    /// the prefix.
    pub(super) fn takes(&mut self, stream: Stream, consumer: &str, filter: Option<&str>) {
        self.takes_events |= stream == Stream::Events;
        let name = self.stream(stream);
        let place = format!("{name}.{consumer}");
        match filter {
            Some(filter) => {
                let filter = format!("{place}.{}.{filter}", self.topology.prefix());
                self.asks("CONSUMER.CREATE", &filter);
            }
            None => self.asks("CONSUMER.CREATE", &place),
        }
        self.asks("CONSUMER.MSG.NEXT", &place);
        // The second form is of servers that tell domains and accounts apart.
        let acks = [format!("$JS.ACK.{place}.>"), format!("$JS.ACK.*.*.{place}.>")];
        self.permissions.publish.extend(acks);
    }

    /// The same, taking the consumer over from whoever had it.
    pub(super) fn takes_over(&mut self, stream: Stream, consumer: &str, filter: Option<&str>) {
        self.takes(stream, consumer, filter);
        let place = format!("{}.{consumer}", self.stream(stream));
        for question in ["CONSUMER.INFO", "CONSUMER.DELETE"] {
            self.asks(question, &place);
        }
    }

    /// Writes to a stream under a subject, which is given without the prefix; where a repeat would be
    /// another record, it looks first whether one is there.
    pub(super) fn appends(&mut self, stream: Stream, subject: &str) {
        self.publishes(subject);
        if stream.must_be_unique() {
            self.follows(&self.stream(stream));
        }
    }

    /// Sets records of a stream aside that cannot be read.
    pub(super) fn sets_aside(&mut self, stream: Stream) {
        self.appends(Stream::Rejected, &format!("aside.{}", stream.as_str()));
    }

    /// Keeps values under some keys of a bucket, each by compare-and-set.
    pub(super) fn keeps(&mut self, bucket: Bucket, keys: &str) {
        let name = self.topology.bucket(bucket);
        self.permissions.publish.insert(format!("$KV.{name}.{keys}"));
        self.gets(&self.bucket(bucket));
    }

    /// Keeps objects in a bucket.
    pub(super) fn stores(&mut self, bucket: Bucket) {
        let name = self.topology.bucket(bucket);
        for part in ["C", "M"] {
            self.permissions.publish.insert(format!("$O.{name}.{part}.>"));
        }
        let stream = self.bucket(bucket);
        self.follows(&stream);
        // Clients name the subject here.
        self.asks("DIRECT.GET", &format!("{stream}.>"));
        self.asks("STREAM.PURGE", &stream);
    }

    /// Is a member of a role.
    pub(super) fn is_member(&mut self, role: &str) {
        self.keeps(Bucket::Owners, &format!("{role}.>"));
        self.follows_bucket(Bucket::Owners);
    }

    /// Answers requests to a kind of subject, as a micro service that tools find.
    pub(super) fn serves(&mut self, kind: &str) {
        self.subscribes(&format!("{kind}.>"));
        let service = format!("{}-{kind}", self.topology.prefix());
        for verb in ["PING", "INFO", "STATS"] {
            let subjects = [
                format!("$SRV.{verb}"),
                format!("$SRV.{verb}.{service}"),
                format!("$SRV.{verb}.{service}.*"),
            ];
            self.permissions.subscribe.extend(subjects);
        }
        // It asks itself whether it is heard.
        self.permissions.publish.insert(format!("$SRV.PING.{service}.*"));
    }

    /// Finds micro services.
    pub(super) fn looks_for_services(&mut self) {
        for verb in ["PING", "INFO", "STATS"] {
            self.permissions.publish.insert(format!("$SRV.{verb}"));
            self.permissions.publish.insert(format!("$SRV.{verb}.>"));
        }
    }
}
