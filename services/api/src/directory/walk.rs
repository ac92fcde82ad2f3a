//! Going through the endpoints of all tenants.

use std::ops::Bound;

use fanfare_domain::{Endpoint, EndpointId, TenantId};

use super::{Directory, Endpoints, Kept, Revised, page};

impl Directory {
    /// Returns every endpoint of every tenant.
    pub(crate) fn all_endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let all = self.endpoints.values().flat_map(|endpoints| endpoints.by_id.values());
        all.map(|endpoint| endpoint.packed.unpack())
    }

    /// Returns up to `limit` endpoints of all tenants, in the order of tenants and of ids, behind one.
    pub(crate) fn endpoints_behind(
        &self,
        after: Option<&(TenantId, EndpointId)>,
        limit: usize,
    ) -> Vec<Revised<Endpoint>> {
        let first = after.map_or(Bound::Unbounded, |(tenant, _)| Bound::Included(tenant));
        let tenants = self.endpoints.range::<TenantId, _>((first, Bound::Unbounded));
        let of_tenant = |(tenant, endpoints): (&TenantId, &'_ Endpoints)| {
            let after = after.filter(|(known, _)| known == tenant).map(|(_, id)| id);
            page(&endpoints.by_id, after).take(limit).map(Kept::revised).collect::<Vec<_>>()
        };
        tenants.flat_map(of_tenant).take(limit).collect()
    }
}
