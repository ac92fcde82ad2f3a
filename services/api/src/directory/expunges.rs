//! Tenants of which everything is being removed, or was.

use std::{collections::BTreeMap, sync::Arc};

use fanfare_domain::{
    Change, Entity, Tenant, TenantId, Timestamp, TraceContext,
    tenant::{Expunge, ExpungeStage},
};

/// The last removal of each tenant's id.
#[derive(Debug, Default)]
pub(crate) struct Expunges(BTreeMap<TenantId, Expunging>);

/// The removal of a tenant.
#[derive(Clone, Debug)]
pub(crate) struct Expunging {
    /// What is left of the tenant.
    pub(crate) tenant: Arc<Tenant>,
    /// How it stands.
    pub(crate) expunge: Expunge,
    /// The revision at which it began, or that of its last record.
    pub(crate) revision: u64,
    /// Who asked for it.
    pub(crate) actor: String,
    /// Why, in their words.
    pub(crate) reason: String,
}

impl Expunging {
    /// Tells whether it goes on.
    pub(crate) fn is_running(&self) -> bool {
        self.expunge.stage == ExpungeStage::Running
    }

    /// Makes a deletion that is part of it, in the name of who asked for it.
    pub(crate) fn deletion(&self, entity: Entity) -> Change {
        let (actor, reason) = (self.actor.clone(), self.reason.clone());
        Change { entity, deleted: true, actor, reason, trace: TraceContext::default() }
    }
}

impl Expunges {
    /// Returns the last one of a tenant of this id.
    pub(crate) fn of(&self, tenant: &TenantId) -> Option<&Expunging> {
        self.0.get(tenant)
    }

    /// Returns those that go on.
    pub(crate) fn running(&self) -> Vec<Expunging> {
        self.0.values().filter(|one| one.is_running()).cloned().collect()
    }

    /// Returns those that ended at a time or later.
    pub(crate) fn ended_since(&self, since: Timestamp) -> Vec<Expunging> {
        let ended = |one: &&Expunging| match one.expunge.stage {
            ExpungeStage::Finished(at) => at >= since,
            ExpungeStage::Running | ExpungeStage::Earlier(_) => false,
        };
        self.0.values().filter(ended).cloned().collect()
    }

    /// Takes a change of a tenant.
    pub(super) fn apply(&mut self, tenant: &Arc<Tenant>, revision: u64, change: &Change) {
        let Some(expunge) = tenant.expunge.clone().filter(|_| change.deleted) else { return };
        match expunge.stage {
            ExpungeStage::Running | ExpungeStage::Finished(_) => {
                let (actor, reason) = (change.actor.clone(), change.reason.clone());
                let tenant = Arc::clone(tenant);
                let id = tenant.id.clone();
                self.0.insert(id, Expunging { tenant, expunge, revision, actor, reason });
            }
            ExpungeStage::Earlier(_) => {}
        }
    }
}
