//! Endpoints as they are kept in memory, where there are many and few are looked at.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use fanfare_domain::Endpoint;
use prost::Message as _;

use super::endpoint;
use crate::{encode::Fields as _, wire};

/// An endpoint in its wire form: one allocation, about a third of what the value takes. Cheap to
/// clone; unpacking it costs a microsecond or two.
#[derive(Clone, PartialEq, Eq)]
pub struct PackedEndpoint(Arc<[u8]>);

impl PackedEndpoint {
    /// Packs an endpoint.
    pub fn pack(endpoint: &Endpoint) -> Self {
        Self(Arc::from(&*endpoint.to_bytes()))
    }

    /// Returns the endpoint.
    ///
    /// # Panics
    ///
    /// Never: what was packed is an endpoint.
    pub fn unpack(&self) -> Endpoint {
        let wire = wire::Endpoint::decode(Bytes::copy_from_slice(&self.0));
        let wire = wire.expect("what was packed is a message");
        endpoint::decode(wire).expect("what was packed is an endpoint")
    }
}

impl fmt::Debug for PackedEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unpack().fmt(f)
    }
}
