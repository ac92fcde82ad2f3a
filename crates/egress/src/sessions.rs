//! What is remembered of TLS sessions, and when one begins.
//!
//! The HTTP client hides when there is a TCP connection: its connector layer sees the whole of TCP and
//! TLS. But rustls asks here for what it remembers of a server just before it greets it, which is at
//! once when there is a connection, and on the task of the request that wants it.

use std::sync::Arc;

use rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    pki_types::ServerName,
};

use crate::marks::{MARKS, Marks};

/// How many servers are remembered: as many as rustls would by itself.
const SERVERS_MAX: usize = 256;

/// Remembers sessions in memory.
#[derive(Debug)]
pub(crate) struct Sessions(ClientSessionMemoryCache);

impl Sessions {
    /// Remembers nothing yet.
    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self(ClientSessionMemoryCache::new(SERVERS_MAX)))
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        // Outside a request there is nobody who wants to know.
        let _nobody = MARKS.try_with(Marks::greeted);
        self.0.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.0.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.0.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(server_name)
    }
}
